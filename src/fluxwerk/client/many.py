"""A series: many requests at once, each result as it comes, and nothing bought for listeners who have left."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent import futures
from contextvars import ContextVar
from dataclasses import dataclass

from fluxwerk.client.image import Image
from fluxwerk.errors import FluxwerkError, InDoubtError
from fluxwerk.types import Request

log = logging.getLogger("fluxwerk")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one of many: the request or prompt as it was given, and its image or the error that ended it."""

    request: Request | str
    image: Image | None = None
    error: FluxwerkError | None = None


class Many:
    """One `generate_many`, `width` requests at a time; `closed` is set when its client is.

    When nobody listens any more nothing more is bought, and what is in flight finishes unseen; when the client is
    closed nothing more is sent at all.
    """

    def __init__(self, width: int, closed: threading.Event) -> None:
        self._width = width
        self.closed = closed
        self.unheard = threading.Event()

    def on_threads(
        self, make: Callable[[Request | str], Image], requests: Iterable[Request | str]
    ) -> Generator[Result]:
        """Make images in threads and yield each as it finishes."""

        def carry(request: Request | str) -> Result:
            _mine.set(self)
            try:
                return Result(request, make(request))
            except FluxwerkError as error:
                return self._failed(request, error)

        pool = futures.ThreadPoolExecutor(self._width, thread_name_prefix="fluxwerk")
        try:
            running: set[futures.Future[Result]] = set()
            for request in requests:
                running.add(pool.submit(carry, request))
                if len(running) >= self._width:
                    done, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                    yield from (one.result() for one in done)
            yield from (one.result() for one in futures.as_completed(running))
        finally:
            self.unheard.set()
            pool.shutdown(wait=False, cancel_futures=True)

    async def on_loop(
        self, make: Callable[[Request | str], Awaitable[Image]], requests: Iterable[Request | str]
    ) -> AsyncGenerator[Result]:
        """Make images on the running event loop and yield each as it finishes."""
        import asyncio  # noqa: PLC0415  (a blocking client never needs it)

        async def carry(request: Request | str) -> Result:
            _mine.set(self)
            try:
                return Result(request, await make(request))
            except FluxwerkError as error:
                return self._failed(request, error)

        running: set[asyncio.Task[Result]] = set()
        try:
            for request in requests:
                running.add(asyncio.create_task(carry(request)))
                if len(running) >= self._width:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for one in done:
                        yield one.result()
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        finally:
            self.unheard.set()
            for one in running:
                one.cancel()

    def _failed(self, request: Request | str, error: FluxwerkError) -> Result:
        if isinstance(error, InDoubtError) and self.unheard.is_set():
            # Nobody is there to see it, and it is about money.
            log.warning("%s", error)
        return Result(request, error=error)


# The series for which this thread or coroutine makes an image, if it is one of many.
_mine: ContextVar[Many | None] = ContextVar("series", default=None)


def may_buy() -> bool:
    """Whether a submit may leave: not for a series that nobody listens to any more."""
    series = _mine.get()
    return series is None or not (series.unheard.is_set() or series.closed.is_set())


def may_send() -> bool:
    """Whether anything may leave: not for a series whose client is closed."""
    series = _mine.get()
    return series is None or not series.closed.is_set()
