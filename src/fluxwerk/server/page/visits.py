"""A browser's session: the key is exchanged once for a signed cookie that no script can read."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from fluxwerk.client.proxy import is_loopback
from fluxwerk.protocol import wire
from fluxwerk.server import schema
from fluxwerk.server.errors import ServerError, invalid, unfit
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import sessions
from fluxwerk.server.state.accounts import digest_of
from fluxwerk.server.state.sessions import SESSION_SECONDS
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Json, Response

# Whose tasks they are on a server that takes any key: everybody's at this machine.
NOBODYS_KEY = "studio"


def begin(state: ServerState, request: ServerRequest) -> Response:
    """Exchange a key for a session; without a key only where every key is taken, and only on this machine."""
    key = text_of(request.body, "key")
    if not key:
        if not _is_open(state, request):
            raise ServerError("no_key", "Give your key; this server opens no account without one.")
        key = NOBODYS_KEY
    account = state.authenticate(ServerRequest("POST", request.path, request.origin, {}, {"x-key": key}, b""))
    return opened(state, request, key, sessions.COOKIE, credits=account.credits)


def opened(state: ServerState, request: ServerRequest, key: str, name: str, **facts: Json) -> Response:
    """Answer with a session of a key, in a cookie of that name."""
    if "origin" in request.headers:
        sessions.check_origin(request)
    token = sessions.write(state.secret, digest_of(key), state.clock() + SESSION_SECONDS)
    headers = {**wire.JSON, "set-cookie": _cookie(request, name, token, SESSION_SECONDS), "cache-control": "no-store"}
    return Response(200, headers, wire.dump({"signed_in": True, **facts}))


def show(state: ServerState, request: ServerRequest) -> Response:
    """Say who is there: whether a session is open, what is left of its credits, and what the server is."""
    try:
        credits_ = state.authenticate(request).credits
    except ServerError:
        credits_ = None
    body: dict[str, Json] = {
        "signed_in": credits_ is not None,
        "keyless": _is_open(state, request),
        "credits": credits_,
        "engine": state.sole_engine(),
        "keep": state.accounts.keep,
    }
    return Response(200, {**wire.JSON, "cache-control": "no-store"}, wire.dump(body))


def end(_: ServerState, request: ServerRequest) -> Response:
    """Let the browser forget its session."""
    if "origin" in request.headers:
        sessions.check_origin(request)
    return Response(
        200, {**wire.JSON, "set-cookie": _cookie(request, sessions.COOKIE, "", 0)}, wire.dump({"signed_in": False})
    )


def text_of(body: bytes, name: str) -> str:
    """Read one text from a JSON object; empty if it is missing.  Raises `ServerError`."""
    try:
        given: Json = schema.parse(body) if body.strip() else {}
    except schema.InvalidFieldsError as wrong:
        raise invalid(wrong.detail) from None
    value = cast("dict[str, Json]", given).get(name) if isinstance(given, dict) else 0
    if not isinstance(value, str | None):
        raise unfit(name, "Input should be a text in a JSON object")
    return (value or "").strip()


def _is_open(state: ServerState, request: ServerRequest) -> bool:
    host = urlsplit(request.origin).hostname or ""
    return is_loopback(host) and state.accounts.account_of(digest_of(NOBODYS_KEY)) is not None


def _cookie(request: ServerRequest, name: str, token: str, seconds: float) -> str:
    secure = "; Secure" if request.origin.startswith("https://") else ""
    name = sessions.cookie_name(request.origin, name)
    return f"{name}={token}; Max-Age={int(seconds)}; Path=/; HttpOnly; SameSite=Strict{secure}"
