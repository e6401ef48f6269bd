"""The one seam through which HTTP requests leave: the HTTP library's side of it.

Our own connections are httpcore2's, the lower half of httpx2: a request costs a third less than through httpx2, and
its sockets know the deadline.  A client that was handed in, and one for a proxy, is httpx2's own.
Nothing of either passes upwards: their exceptions become `TransportError`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import aclosing, closing
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from fluxwerk.client import logs, sockets
from fluxwerk.client.credentials import Credentials
from fluxwerk.errors import ConnectionFailedError, FluxwerkError, NoResponseError, TransportError
from fluxwerk.protocol import trust
from fluxwerk.types import HttpRequest, Response

if TYPE_CHECKING:
    from typing import Self

    import httpx2

# No single read may hang longer than this, even when the deadline is far.  A submit is given more time than a poll or a
# download, which can be repeated for nothing.
LONGEST_SUBMIT = 60.0
LONGEST_READ = 20.0
LONGEST_CONNECT = 10.0
LARGEST_BODY = 128 * 1024 * 1024
# Idle connections: 24 slots, their polls and downloads need fewer, and the budget of polls keeps it so with more slots.
# The pool looks at each of them for every request, so that hundreds would cost more than they save.
KEPT_ALIVE = 64
# Servers close idle lines after five seconds and more: a submit that met the closing would be in doubt.
KEPT_SECONDS = 3.0
NEVER_LEFT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "InvalidURL",
        "UnicodeEncodeError",
        "UnicodeError",
    }
)
# What a URL may hold as it stands; anything else is written in percent.
PLAIN = "%/:=&?~#+!$,;'@()*[]"


class Transport(Protocol):
    """Connections of a blocking client."""

    def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        """Send a request and read its answer within `budget` seconds; raises `TransportError`."""
        ...

    def close(self) -> None:
        """Close what was opened here."""
        ...


class AsyncTransport(Protocol):
    """Connections of an asyncio client, on one event loop."""

    async def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        """Send a request and read its answer within `budget` seconds; raises `TransportError`."""
        ...

    async def close(self) -> None:
        """Close what was opened here."""
        ...


def open_transport(given: httpx2.Client | None = None) -> Transport:
    """Open connections, or use those of a client that was handed in."""
    if given:
        return _GivenTransport(given, owned=False)
    if _has_proxy():
        import httpx2  # noqa: PLC0415  (slow to import, and only proxies need it)

        return _GivenTransport(httpx2.Client(limits=_limitless()), owned=True)
    return _OwnTransport()


def open_async_transport(given: httpx2.AsyncClient | None = None) -> AsyncTransport:
    """Open connections for the running event loop, or use those of a client that was handed in."""
    if given:
        return _AsyncGivenTransport(given, owned=False)
    if _has_proxy():
        import httpx2  # noqa: PLC0415

        return _AsyncGivenTransport(httpx2.AsyncClient(limits=_limitless()), owned=True)
    return _AsyncOwnTransport()


class _OwnTransport:
    def __init__(self) -> None:
        import httpcore2  # noqa: PLC0415  (only senders pay for it)

        self._pool = httpcore2.ConnectionPool(
            max_connections=None,
            max_keepalive_connections=KEPT_ALIVE,
            keepalive_expiry=KEPT_SECONDS,
            network_backend=sockets.blocking(),
        )

    def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        body = _Body(budget)
        with _Losses() as losses, self._pool.stream(**_core(credentials, request, body)) as answer:
            for part in answer.iter_stream():
                body.add(part)
            return _response(answer.status, answer.headers, body)
        raise losses.loss

    def close(self) -> None:
        self._pool.close()


class _AsyncOwnTransport:
    def __init__(self) -> None:
        import httpcore2  # noqa: PLC0415

        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=None,
            max_keepalive_connections=KEPT_ALIVE,
            keepalive_expiry=KEPT_SECONDS,
            network_backend=sockets.on_loop(),
        )

    async def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        import asyncio  # noqa: PLC0415  (a blocking client never needs it)

        body = _Body(budget)
        with _Losses() as losses:
            call = _core(credentials, request, body, is_async=True)
            async with asyncio.timeout(budget), self._pool.stream(**call) as answer:
                async for part in answer.aiter_stream():
                    body.add(part)
                return _response(answer.status, answer.headers, body)
        raise losses.loss

    async def close(self) -> None:
        await self._pool.aclose()


class _GivenTransport:
    def __init__(self, http: httpx2.Client, *, owned: bool) -> None:
        self._http = http
        self._owned = owned

    def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        with _Losses() as losses:
            return _within(budget, lambda: self._read(credentials, request, budget))
        raise losses.loss

    def _read(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        body = _Body(budget)
        prepared = _prepare(self._http, credentials, request, body, is_async=False)
        # httpx2 would carry x-key along a redirect to another host.
        with closing(self._http.send(prepared, stream=True, follow_redirects=False)) as answer:
            for part in answer.iter_bytes():
                body.add(part)
            return Response(answer.status_code, dict(answer.headers), bytes(body.data))

    def close(self) -> None:
        if self._owned:
            self._http.close()


class _AsyncGivenTransport:
    def __init__(self, http: httpx2.AsyncClient, *, owned: bool) -> None:
        self._http = http
        self._owned = owned

    async def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        import asyncio  # noqa: PLC0415

        body = _Body(budget)
        with _Losses() as losses:
            prepared = _prepare(self._http, credentials, request, body, is_async=True)
            async with asyncio.timeout(budget):
                answer = await self._http.send(prepared, stream=True, follow_redirects=False)
                async with aclosing(answer):
                    async for part in answer.aiter_bytes():
                        body.add(part)
                    return Response(answer.status_code, dict(answer.headers), bytes(body.data))
        raise losses.loss

    async def close(self) -> None:
        if self._owned:
            await self._http.aclose()


class ASGITransport(_AsyncGivenTransport):
    """Reaches an ASGI application in this process, without a socket: `AsyncClient(transport=ASGITransport(app))`.

    The application has to be started by the caller, since a transport does not run its lifespan.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        import httpx2  # noqa: PLC0415

        super().__init__(httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app)), owned=True)


def _within(budget: float | None, work: Callable[[], Response]) -> Response:
    """Do blocking work and leave it alone at the deadline; raises `TimeoutError`.

    The sockets of a client that was handed in do not know the deadline: each single read may take as long as there was
    left in the beginning.  So the work has a thread of its own, which ends by those limits, and this one ends in time.
    """
    if budget is None:
        return work()
    from concurrent.futures import Future  # noqa: PLC0415  (only clients that were handed in need it)

    done: Future[Response] = Future()
    context = copy_context()

    def run() -> None:
        try:
            done.set_result(context.run(work))
        except BaseException as trouble:  # noqa: BLE001  (it is raised where the work was asked for)
            done.set_exception(trouble)

    threading.Thread(target=run, name="fluxwerk-transport", daemon=True).start()
    return done.result(max(0.0, budget))


def _has_proxy() -> bool:
    from urllib.request import getproxies  # noqa: PLC0415

    return bool(getproxies().keys() & {"http", "https", "all"})


class _Body:
    """What has arrived of a body, bounded in bytes and in seconds."""

    def __init__(self, budget: float | None) -> None:
        self.data = bytearray()
        self.budget = budget
        self.until = float("inf") if budget is None else time.monotonic() + budget

    def add(self, part: bytes) -> None:
        self.data += part
        if len(self.data) > LARGEST_BODY:
            raise NoResponseError(f"the answer is larger than {LARGEST_BODY} bytes")
        if time.monotonic() > self.until:
            raise NoResponseError("the answer was still dripping at the deadline")


def _limitless() -> httpx2.Limits:
    import httpx2  # noqa: PLC0415

    return httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT_ALIVE, keepalive_expiry=KEPT_SECONDS)


def _limits(request: HttpRequest, body: _Body) -> dict[str, float]:
    longest = LONGEST_READ if request.method == "GET" else LONGEST_SUBMIT
    left = longest if body.budget is None else max(0.001, min(longest, body.budget))
    # A little less than all, so that a connection that never stood is told apart from an answer that never came.
    connect = min(left * 0.9, LONGEST_CONNECT)
    whole = sockets.TimeLimit(left, body.until)
    return {"connect": connect, "read": whole, "write": whole, "pool": connect}


def _core(credentials: Credentials, request: HttpRequest, body: _Body, *, is_async: bool = False) -> dict[str, Any]:
    url = request.url if request.url.isascii() else quote(request.url, safe=PLAIN)
    # identity: nothing that arrives has to be unpacked, and so nothing can unpack to any size.
    headers = {"accept": "*/*", "accept-encoding": "identity", **credentials.headers(request)}
    return {
        "method": request.method,
        "url": url,
        "headers": headers,
        "content": request.body or None,
        "extensions": {"timeout": _limits(request, body), **logs.extensions(is_async=is_async)},
    }


def _prepare(
    http: httpx2.Client | httpx2.AsyncClient,
    credentials: Credentials,
    request: HttpRequest,
    body: _Body,
    *,
    is_async: bool,
) -> httpx2.Request:
    limits = _limits(request, body)
    prepared = http.build_request(
        request.method,
        request.url,
        content=request.body or None,
        headers=credentials.headers(request),
        timeout=(limits["connect"], limits["read"], limits["write"], limits["pool"]),
        extensions=logs.extensions(is_async=is_async),
    )
    if request.keyed:
        logs.guard_packed_headers()
    else:
        # A delivery's URL is a credential.
        prepared.url = logs.quiet_url(prepared.url)
    return prepared


def _response(status: int, headers: list[tuple[bytes, bytes]], body: _Body) -> Response:
    names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    return Response(status, names, bytes(body.data))


class _Losses:
    """Keeps the HTTP library's exceptions in, since they carry URLs and headers; `loss` is to be raised instead.

    It is raised after the `with`, so that the library's exception does not hang on ours as its context.
    """

    loss: TransportError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, trouble: BaseException | None, trace: object) -> bool:
        if not isinstance(trouble, Exception) or isinstance(trouble, FluxwerkError):
            return False
        loss = _loss(trouble)
        if loss is None:
            return False
        self.loss = loss
        return True


def _loss(trouble: Exception) -> TransportError | None:
    kind = type(trouble).__name__
    reason = f"{kind}: {trust.redact(str(trouble))}".rstrip(": ")
    if kind in NEVER_LEFT:
        return ConnectionFailedError(f"The service could not be reached ({reason}).")
    if kind == "TimeoutError":
        return NoResponseError("no whole answer came before the deadline")
    # httpx2 and httpcore2 name their exceptions alike; the rest is what they let through from below.
    library = type(trouble).__module__.partition(".")[0]
    if library in ("httpx2", "httpcore2", "ssl", "anyio", "h11", "h2") or isinstance(trouble, OSError):
        return NoResponseError(f"the answer was lost ({reason})")
    return None
