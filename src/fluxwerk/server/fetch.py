"""The guard: fetches what a stranger's URL names without being led to a machine that is none of theirs.

The name is resolved once, every address is judged, and the connection goes to an address that was judged.  Redirects
are followed by hand, each through the same guard; bytes and seconds are bounded over all of them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, urljoin

import httpcore2

from fluxwerk.catalog.images import LARGEST_BYTES
from fluxwerk.errors import ConnectionFailedError, NoResponseError
from fluxwerk.server.address import take_apart
from fluxwerk.server.state.webhooks import ACKNOWLEDGE_SECONDS
from fluxwerk.types import HttpRequest, Response

Resolve = Callable[[str, int], Awaitable[list[str]]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEADLINE = 20.0
CONNECT = 5.0
HOPS = 3
ADDRESSES = 4
PORTS = frozenset({80, 443})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Ranges that lead back inside although Python calls some of them global: translation, tunnels, benchmarks.
INSIDE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "fec0::/10",
        "ff00::/8",
    )
)


class Guard:
    """Sends what a stranger's URL asks for; `allow` are networks inside which the operator opens, such as 127.0.0.0/8.

    `plain` names the hosts outside to which webhooks may go by plain http.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        resolve: Resolve | None = None,
        deadline: float = DEADLINE,
        *,
        plain: Iterable[str] = (),
        patience: float = ACKNOWLEDGE_SECONDS,
    ) -> None:
        networks = tuple(ipaddress.ip_network(text) for text in allow)
        self._backend = _Backend(networks, resolve or _look_up)
        self._inside = _Backend(networks, resolve or _look_up, public=False)
        self._plain = frozenset(plain)
        self._deadline = deadline
        self._patience = patience

    async def fetch(self, request: HttpRequest, budget: float | None = None) -> Response:
        """Send a GET and return the answer within `budget` seconds and the guard's own deadline.

        Raises `ConnectionFailedError` for what must not be followed, `NoResponseError` else.
        The messages name no address, so that a client cannot map the network behind the server.
        """
        seconds = self._deadline if budget is None else min(self._deadline, budget)
        with _explained():
            async with asyncio.timeout(seconds), _pool(self._backend) as pool:
                return await self._follow(pool, request.url)

    async def post(self, request: HttpRequest, _budget: float | None = None) -> Response:
        """Send a POST and return the answer with its first bytes; a redirect is an answer like any other.

        Plain http goes only to the allowed networks and to the hosts named for it.  Raises as `fetch` does.
        """
        parts = _check(request.url)
        backend = self._backend if parts.scheme == "https" or parts.hostname in self._plain else self._inside
        headers: dict[str | bytes, str | bytes] = {
            **dict[str | bytes, str | bytes](request.headers.items()),
            "host": parts.netloc,
            "content-length": str(len(request.body)),
        }
        with _explained():
            async with (
                asyncio.timeout(self._patience),
                _pool(backend) as pool,
                pool.stream("POST", request.url, headers=headers, content=request.body) as answer,
            ):
                return Response(answer.status)

    async def _follow(self, pool: httpcore2.AsyncConnectionPool, url: str) -> Response:
        for _ in range(HOPS + 1):
            parts = _check(url)
            # identity: a compressed body could unpack to any size.
            headers: dict[str | bytes, str | bytes] = {
                "host": parts.netloc,
                "accept-encoding": "identity",
                "user-agent": "fluxwerk",
            }
            async with pool.stream("GET", url, headers=headers) as answer:
                names = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in answer.headers}
                if answer.status in REDIRECTS and "location" in names:
                    url = urljoin(url, names["location"])
                    continue
                return Response(answer.status, names, await _read(answer, names))
        raise ConnectionFailedError("it redirects too often")


@contextmanager
def _explained() -> Generator[None]:
    try:
        yield
    except TimeoutError:
        raise NoResponseError("it did not answer in time") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError, ValueError):
        # ValueError: names with empty or endless labels, and redirects to what is not a URL.
        raise NoResponseError("it could not be reached") from None


def _pool(backend: httpcore2.AsyncNetworkBackend) -> httpcore2.AsyncConnectionPool:
    return httpcore2.AsyncConnectionPool(network_backend=backend, max_connections=4)


class _Backend(httpcore2.AsyncNetworkBackend):
    def __init__(self, allow: tuple[Network, ...], resolve: Resolve, *, public: bool = True) -> None:
        self._inner: httpcore2.AsyncNetworkBackend = httpcore2.AnyIOBackend()  # pyright: ignore[reportAttributeAccessIssue]
        self._allow = allow
        self._resolve = resolve
        self._public = public

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        # One bad address condemns the name: the next look-up might answer with that one alone.
        if not addresses or not all(self._may_reach(address, port) for address in addresses):
            raise ConnectionFailedError("its address is not a public one")
        trouble: Exception = httpcore2.ConnectError("no address answered")
        for address in addresses[:ADDRESSES]:
            try:
                return await self._inner.connect_tcp(address, port, CONNECT, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as refused:
                trouble = refused
        raise trouble

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise ConnectionFailedError("it is a local socket")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    def _may_reach(self, text: str, port: int) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        address = mapped or address
        if any(address in network for network in self._allow if network.version == address.version):
            return True
        inside = any(address in network for network in INSIDE if network.version == address.version)
        return self._public and port in PORTS and address.is_global and not address.is_multicast and not inside


def _check(url: str) -> SplitResult:
    parts = take_apart(url)
    if parts is None:
        raise ConnectionFailedError("it is not a plain http or https URL")
    return parts


async def _read(answer: httpcore2.Response, headers: dict[str, str]) -> bytes:
    if headers.get("content-encoding", "identity") != "identity":
        raise NoResponseError("its body is compressed")
    body = bytearray()
    async for part in answer.aiter_stream():
        body += part
        if len(body) > LARGEST_BYTES:
            raise NoResponseError("it is larger than 20 MB")
    return bytes(body)


async def _look_up(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise httpcore2.ConnectError("the name does not resolve") from None
    return [str(entry[4][0]) for entry in found]
