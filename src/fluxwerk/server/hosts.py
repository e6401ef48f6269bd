"""Which names a server answers to, so that no web page of a stranger can drive a server on this machine.

A page that rebinds its own name to 127.0.0.1 sends that name as `Host`, and a page that posts across origins sends its
own as `Origin`; neither can be chosen by the page's script.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fluxwerk.client.proxy import is_loopback

READING = frozenset({"GET", "HEAD", "OPTIONS"})
FORBIDDEN, MISDIRECTED = 403, 421
PREFLIGHT = "access-control-request-method"


class HostCheck:
    """Wraps an ASGI application: refuses foreign hosts and origins, and makes links of the public URL.

    Pages of known origins may read the answers, such as a chat application in a browser on this machine.

    The server answers to every host if `open_` is set, which is for a bind that strangers reach on purpose, and else
    to loopback names, the host of `public_url` and those in `allowed`.
    """

    def __init__(
        self, app: ASGIApp, allowed: Iterable[str] = (), *, public_url: str | None = None, open_: bool = False
    ) -> None:
        self._app = app
        self._open = open_
        self._public = urlsplit(public_url) if public_url else None
        self._allowed = {host.lower().rstrip(".") for host in allowed}
        if self._public and self._public.hostname:
            self._allowed.add(self._public.hostname)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on under the public name."""
        if scope["type"] == "http":
            refusal = self._refusal(scope["method"], Headers(scope=scope))
            if refusal:
                await refusal(scope, receive, send)
                return
            origin = self._reader(Headers(scope=scope))
            if self._public:
                scope = _renamed(scope, self._public)
            if origin:
                await self._share(origin, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _reader(self, headers: Headers) -> str | None:
        """Return the origin of a page that may read the answer, if it is a page of another origin at all."""
        origin = headers.get("origin")
        return origin if origin and self._is_own(origin, headers.get("host", "")) else None

    async def _share(self, origin: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer so that a browser shows the answer to the page; no cookies, since every request has its key."""
        shared = {"access-control-allow-origin": origin, "access-control-expose-headers": "*", "vary": "Origin"}
        asked = Headers(scope=scope)
        if scope["method"] == "OPTIONS" and PREFLIGHT in asked:
            allowed = {
                "access-control-allow-methods": asked[PREFLIGHT],
                "access-control-allow-headers": asked.get("access-control-request-headers", ""),
            }
            await Response(status_code=204, headers=shared | allowed)(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(shared)
            await send(message)

        await self._app(scope, receive, answer)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if not self._open and not self._knows(_hostname(f"//{host}")):
            text = f"This server does not answer to the host {host[:200]!r}; allow it with --allowed-host"
            return _answer(MISDIRECTED, "misdirected_request", text)
        origin = headers.get("origin")
        if origin is None or method in READING or self._is_own(origin, host):
            return None
        text = f"Requests from the origin {origin[:200]!r} are refused; allow its host with --allowed-host"
        return _answer(FORBIDDEN, "forbidden", text)

    def _is_own(self, origin: str, host: str) -> bool:
        name = _hostname(origin)
        if self._open:
            return name in self._allowed or (bool(name) and urlsplit(origin).netloc.lower() == host.lower())
        return self._knows(name)

    def _knows(self, name: str) -> bool:
        return bool(name) and (is_loopback(name) or name in self._allowed)


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _renamed(scope: Scope, public: SplitResult) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return {**scope, "scheme": public.scheme, "headers": [(b"host", public.netloc.encode()), *headers]}


def _answer(status: int, error: str, text: str) -> JSONResponse:
    return JSONResponse({"detail": text, "error": error, "message": text}, status)
