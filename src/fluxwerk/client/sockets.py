"""The sockets under the pools of connections: blocking ones that know a deadline, and cheap ones for an event loop."""

from __future__ import annotations

import select
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpcore2

# When the request that this thread is sending must be over, on the monotonic clock.
deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


def blocking() -> httpcore2.NetworkBackend:
    """Make sockets that know the deadline of the thread that reads them: a stalled answer is given up in time."""
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
            return Stream(await self._inner.start_tls(*rest, **named))

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
    left = deadline.get() - time.monotonic()
    if left <= 0:
        raise late("the deadline has passed")
    return left if timeout is None else min(timeout, left)
