"""The sockets under the pools of connections: blocking ones that know a deadline, and cheap ones for an event loop."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

    import httpcore2


class TimeLimit(float):
    """The seconds that one read or write may take, and `until` when, on the monotonic clock, the whole request may.

    A stream is handed nothing of its request but this timeout, so the deadline rides in it.
    """

    until: float

    def __new__(cls, seconds: float, until: float) -> Self:
        """Make a timeout of `seconds`."""
        limit = super().__new__(cls, seconds)
        limit.until = until
        return limit


def blocking() -> httpcore2.NetworkBackend:
    """Make sockets that know the deadline of the request that they carry: a stalled answer is given up in time."""
    import httpcore2  # noqa: PLC0415  (only senders pay for it)

    class Stream(httpcore2.NetworkStream):
        def __init__(self, inner: httpcore2.NetworkStream) -> None:
            self._inner = inner

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self._inner.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self._inner.write(buffer, _left(timeout, httpcore2.WriteTimeout))

        def close(self) -> None:
            self._inner.close()

        def start_tls(self, *rest: Any, **named: Any) -> httpcore2.NetworkStream:
            return Stream(self._inner.start_tls(*rest, **named))

        def get_extra_info(self, info: str) -> Any:
            return self._inner.get_extra_info(info)

    class Backend(httpcore2.SyncBackend):
        def connect_tcp(self, *rest: Any, **named: Any) -> httpcore2.NetworkStream:
            return Stream(super().connect_tcp(*rest, **named))

    return Backend()


def on_loop() -> httpcore2.AsyncNetworkBackend:
    """Make sockets that say cheaply whether the other side has hung up.

    The pool asks that of every idle connection for every request; the library's own answer first looks up the peer's
    address, ten times as long.
    """
    import httpcore2  # noqa: PLC0415

    class Stream(httpcore2.AsyncNetworkStream):
        def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
            self._inner = inner
            self.read, self.write, self.aclose = inner.read, inner.write, inner.aclose  # type: ignore[method-assign]
            self._poll = select.poll() if hasattr(select, "poll") else None
            if self._poll:
                self._poll.register(inner.get_extra_info("socket"), select.POLLIN)

        async def start_tls(self, *rest: Any, **named: Any) -> httpcore2.AsyncNetworkStream:
            try:
                return Stream(await self._inner.start_tls(*rest, **named))
            except BaseException:
                # The library leaves the socket open when a handshake is cancelled at the deadline.
                await self._inner.aclose()
                raise

        def get_extra_info(self, info: str) -> Any:
            if info == "is_readable" and self._poll:
                return bool(self._poll.poll(0))
            return self._inner.get_extra_info(info)

    class Backend(httpcore2.AsyncNetworkBackend):
        def __init__(self) -> None:
            self._inner: Any = httpcore2.AnyIOBackend()
            self.sleep = self._inner.sleep  # type: ignore[method-assign]

        async def connect_tcp(self, *rest: Any, **named: Any) -> httpcore2.AsyncNetworkStream:
            return Stream(await self._inner.connect_tcp(*rest, **named))

    return Backend()


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    if not isinstance(timeout, TimeLimit):
        return timeout
    left = timeout.until - time.monotonic()
    if left <= 0:
        raise late("the deadline has passed")
    return min(timeout, left)
