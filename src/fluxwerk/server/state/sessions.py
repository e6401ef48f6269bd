"""Sessions of browsers: a signed token in a cookie names an account, so that no page ever holds a key.

The token has the SHA-256 of the key, which is all that the server keeps of a key, and the moment of its end.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from fluxwerk.server.errors import ServerError
from fluxwerk.server.hosts import READING
from fluxwerk.server.request import ServerRequest

COOKIE = "fluxwerk"
# A month, in seconds: whoever comes back to the page within it is not asked for the key again.
SESSION_SECONDS = 30 * 86_400.0
SHAPE_OF_TOKEN = re.compile(r"([0-9a-f]{64})\.([0-9]{1,12})\.([0-9a-f]{64})")


def cookie_name(origin: str, name: str = COOKIE) -> str:
    """Name the cookie after the port, because browsers do not tell the servers of one host apart."""
    parts = urlsplit(origin)
    return f"{name}_{parts.port or parts.scheme}"


def write(secret: bytes, digest: str, until: float) -> str:
    """Write the token that opens an account until a moment in seconds since 1970."""
    claims = f"{digest}.{int(until)}"
    return f"{claims}.{_signature(secret, claims)}"


def read(secret: bytes, token: str, now: float) -> str | None:
    """Return whose token this is, or `None` if it is not genuine or has expired."""
    found = SHAPE_OF_TOKEN.fullmatch(token)
    if found is None or not hmac.compare_digest(_signature(secret, f"{found[1]}.{found[2]}"), found[3]):
        return None
    return found[1] if now < int(found[2]) else None


def visitor(secret: bytes, request: ServerRequest, now: float, name: str = COOKIE) -> str | None:
    """Return whose session a request belongs to, or `None`.

    A browser sends the cookie by itself, so a request that changes anything must also come from this very origin.
    Raises `ServerError` if it does not.
    """
    digest = read(secret, _cookie(request, name), now)
    if digest is not None:
        check_origin(request)
    return digest


def check_origin(request: ServerRequest) -> None:
    """Refuse a change that a page of another origin asks for."""
    if request.method not in READING and request.headers.get("origin") != request.origin:
        raise ServerError("forbidden", "A session changes things only for pages of this server; send x-key instead.")


def _cookie(request: ServerRequest, name: str) -> str:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(request.headers.get("cookie", ""))
    except CookieError:
        return ""
    morsel = cookies.get(cookie_name(request.origin, name))
    return morsel.value if morsel else ""


def _signature(secret: bytes, claims: str) -> str:
    return hmac.digest(secret, f"session\n{claims}".encode(), hashlib.sha256).hex()
