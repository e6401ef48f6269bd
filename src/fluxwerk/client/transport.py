"""The one seam through which HTTP requests leave: the HTTP library's side of it.

Our own connections are httpcore2's, the lower half of httpx2: a request costs a third less than through httpx2, and
its sockets know the deadline.  A client that was handed in, and one for a proxy, is httpx2's own.
Nothing of either passes upwards: their exceptions become `TransportError`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing, closing
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from fluxwerk.client import logs, sockets
from fluxwerk.client.credentials import Credentials
from fluxwerk.client.losses import Departure, Losses, check_certificate_store
from fluxwerk.client.proxy import find_proxies, is_direct, open_proxied
from fluxwerk.errors import NoResponseError
from fluxwerk.types import HttpRequest, Response

if TYPE_CHECKING:
    import httpx2

# No single read may hang longer than this, even when the deadline is far.  A submit is given more time than a poll or a
# download, which can be repeated for nothing.
LONGEST_SUBMIT = 60.0
LONGEST_GET = 20.0
LONGEST_CONNECT = 10.0
LARGEST_BODY = 128 * 1024 * 1024
# Idle connections: 24 slots, their polls and downloads need fewer, and the budget of polls keeps it so with more slots.
# The pool looks at each of them for every request, so that hundreds would cost more than they save.
KEPT_ALIVE = 64
# Servers close idle lines after five seconds and more: a submit that met the closing would be in doubt.
KEPT_SECONDS = 3.0
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
    proxies = find_proxies()
    return _RoutedTransport(proxies) if proxies else _OwnTransport()


def open_async_transport(given: httpx2.AsyncClient | None = None) -> AsyncTransport:
    """Open connections for the running event loop, or use those of a client that was handed in."""
    if given:
        return _AsyncGivenTransport(given, owned=False)
    proxies = find_proxies()
    return _AsyncRoutedTransport(proxies) if proxies else _AsyncOwnTransport()


class _RoutedTransport:
    """Sends each request directly or through the proxy that serves its URL, which is opened for the first of them."""

    def __init__(self, proxies: Mapping[str, str]) -> None:
        self._proxies = proxies
        self._direct = _OwnTransport()
        self._lock = threading.Lock()
        self._proxied: _GivenTransport | None = None

    def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        chosen = self._direct if is_direct(request.url, self._proxies) else self._through_proxy()
        return chosen.send(credentials, request, budget)

    def _through_proxy(self) -> _GivenTransport:
        with self._lock:
            if self._proxied is None:
                client = open_proxied(lambda http: http.Client(limits=_limitless()), self._proxies)
                self._proxied = _GivenTransport(client, owned=True)
            return self._proxied

    def close(self) -> None:
        self._direct.close()
        if self._proxied:
            self._proxied.close()


class _AsyncRoutedTransport:
    """Sends each request directly or through the proxy that serves its URL, which is opened for the first of them."""

    def __init__(self, proxies: Mapping[str, str]) -> None:
        self._proxies = proxies
        self._direct = _AsyncOwnTransport()
        self._proxied: _AsyncGivenTransport | None = None

    async def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        chosen = self._direct if is_direct(request.url, self._proxies) else self._through_proxy()
        return await chosen.send(credentials, request, budget)

    def _through_proxy(self) -> _AsyncGivenTransport:
        if self._proxied is None:
            client = open_proxied(lambda http: http.AsyncClient(limits=_limitless()), self._proxies)
            self._proxied = _AsyncGivenTransport(client, owned=True)
        return self._proxied

    async def close(self) -> None:
        await self._direct.close()
        if self._proxied:
            await self._proxied.close()


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
        attempt = _Attempt(credentials, request, budget)
        with attempt.losses, self._pool.stream(**attempt.core(is_async=False)) as answer:
            for part in answer.iter_stream():
                attempt.body.add(part)
            return attempt.body.of_core(answer.status, answer.headers)
        raise attempt.losses.loss

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

        attempt = _Attempt(credentials, request, budget)
        with attempt.losses:
            async with asyncio.timeout(budget), self._pool.stream(**attempt.core(is_async=True)) as answer:
                async for part in answer.aiter_stream():
                    attempt.body.add(part)
                return attempt.body.of_core(answer.status, answer.headers)
        raise attempt.losses.loss

    async def close(self) -> None:
        await self._pool.aclose()


class _GivenTransport:
    def __init__(self, http: httpx2.Client, *, owned: bool) -> None:
        self._http = http
        self._owned = owned

    def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        attempt = _Attempt(credentials, request, budget, certain=False)
        with attempt.losses:
            return _within(budget, lambda: self._read(attempt))
        raise attempt.losses.loss

    def _read(self, attempt: _Attempt) -> Response:
        # httpx2 would carry x-key along a redirect to another host.
        prepared = attempt.prepare(self._http, is_async=False)
        with closing(self._http.send(prepared, stream=True, follow_redirects=False)) as answer:
            for part in answer.iter_bytes():
                attempt.body.add(part)
            return attempt.body.of_client(answer)

    def close(self) -> None:
        if self._owned:
            self._http.close()


class _AsyncGivenTransport:
    def __init__(self, http: httpx2.AsyncClient, *, owned: bool) -> None:
        self._http = http
        self._owned = owned

    async def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        import asyncio  # noqa: PLC0415

        attempt = _Attempt(credentials, request, budget, certain=False)
        with attempt.losses:
            async with asyncio.timeout(budget):
                prepared = attempt.prepare(self._http, is_async=True)
                async with aclosing(await self._http.send(prepared, stream=True, follow_redirects=False)) as answer:
                    async for part in answer.aiter_bytes():
                        attempt.body.add(part)
                    return attempt.body.of_client(answer)
        raise attempt.losses.loss

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


class _Body:
    """What has arrived of a body, bounded in bytes and in seconds."""

    def __init__(self, until: float) -> None:
        self._data = bytearray()
        self._until = until

    def add(self, part: bytes) -> None:
        self._data += part
        if len(self._data) > LARGEST_BODY:
            raise NoResponseError(f"the answer is larger than {LARGEST_BODY} bytes", permanent=True)
        if time.monotonic() > self._until:
            raise NoResponseError("the answer was still dripping at the deadline")

    def of_core(self, status: int, headers: list[tuple[bytes, bytes]]) -> Response:
        """Return the whole answer of httpcore2."""
        names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        return Response(status, names, bytes(self._data))

    def of_client(self, answer: httpx2.Response) -> Response:
        """Return the whole answer of an httpx2 client."""
        return Response(answer.status_code, dict(answer.headers), bytes(self._data))


class _Attempt:
    """One request on its way: how either library takes it, what has arrived of its answer, and what its loss means."""

    def __init__(
        self, credentials: Credentials, request: HttpRequest, budget: float | None, *, certain: bool = True
    ) -> None:
        self._credentials = credentials
        self._request = request
        self._budget = budget
        self._until = float("inf") if budget is None else time.monotonic() + budget
        self.body = _Body(self._until)
        # Only what is paid for has to know: the trace costs time, and a GET is repeated whether it left or not.
        self._departure = Departure(self._until, certain=certain) if request.method != "GET" else None
        self.losses = Losses(self._departure)

    def core(self, *, is_async: bool) -> dict[str, Any]:
        """Return the request as httpcore2 takes it."""
        request = self._request
        check_certificate_store(request.url)
        url = request.url if request.url.isascii() else quote(request.url, safe=PLAIN)
        # identity: nothing that arrives has to be unpacked, and so nothing can unpack to any size.
        headers = {"accept": "*/*", "accept-encoding": "identity", **self._credentials.headers(request)}
        return {
            "method": request.method,
            "url": url,
            "headers": headers,
            "content": request.body or None,
            "extensions": {"timeout": self._limits(), **self._extensions(is_async=is_async)},
        }

    def prepare(self, http: httpx2.Client | httpx2.AsyncClient, *, is_async: bool) -> httpx2.Request:
        """Return the request as an httpx2 client takes it."""
        request, limits = self._request, self._limits()
        prepared = http.build_request(
            request.method,
            request.url,
            content=request.body or None,
            headers=self._credentials.headers(request),
            timeout=(limits["connect"], limits["read"], limits["write"], limits["pool"]),
            extensions=self._extensions(is_async=is_async),
        )
        if request.keyed:
            logs.guard_packed_headers()
        else:
            # A delivery's URL is a credential.
            prepared.url = logs.quiet_url(prepared.url)
        return prepared

    def _limits(self) -> dict[str, float]:
        longest = LONGEST_GET if self._request.method == "GET" else LONGEST_SUBMIT
        left = longest if self._budget is None else max(0.001, min(longest, self._budget))
        # A little less than all, so that a connection that never stood is told apart from an answer that never came.
        connect = min(left * 0.9, LONGEST_CONNECT)
        whole = sockets.TimeLimit(left, self._until)
        return {"connect": connect, "read": whole, "write": whole, "pool": connect}

    def _extensions(self, *, is_async: bool) -> dict[str, Any]:
        redacting = logs.extensions(is_async=is_async)
        return self._departure.extend(redacting, is_async=is_async) if self._departure else redacting


def _limitless() -> httpx2.Limits:
    import httpx2  # noqa: PLC0415

    return httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT_ALIVE, keepalive_expiry=KEPT_SECONDS)
