"""Many requests at once, each result as it comes; when they are no longer read, nothing more is bought."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from concurrent import futures
from dataclasses import dataclass
from typing import TypeVar

from fluxwerk.client.image import Image
from fluxwerk.drive import complete, lift
from fluxwerk.errors import FluxwerkError, InDoubtError
from fluxwerk.types import Request

T = TypeVar("T")

log = logging.getLogger("fluxwerk")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one of many: the request or prompt as it was given, and its image or the error that ended it."""

    request: Request | str
    image: Image | None = None
    error: FluxwerkError | None = None


class Many:
    """One `generate_many`, `width` requests at a time; `closed` is set when its client is.

    When its results are no longer read nothing more is bought, and what is in flight finishes unseen; when the client
    is closed nothing more is sent at all.  After `stop_buying` nothing more is bought, and the results are read on.
    """

    def __init__(self, width: int, closed: threading.Event) -> None:
        self._width = width
        self._closed = closed
        self._unread = threading.Event()
        self._stopped = threading.Event()

    @property
    def may_buy(self) -> bool:
        """Whether a submit may leave."""
        return not (self._unread.is_set() or self._closed.is_set() or self._stopped.is_set())

    @property
    def may_send(self) -> bool:
        """Whether anything may leave."""
        return not self._closed.is_set()

    @property
    def reason(self) -> str:
        """Why no submit may leave."""
        if self._closed.is_set():
            return "The client was closed."
        if self._stopped.is_set():
            return "Another submit is in doubt, and on_doubt is 'stop'."
        return "The results are no longer read."

    def stop_buying(self) -> None:
        """Let no further submit leave."""
        self._stopped.set()

    def on_threads(
        self, make: Callable[[Request | str], Image], requests: Iterable[Request | str]
    ) -> Generator[Result]:
        """Make images in threads and yield each as it finishes."""
        making = lift(make)
        pool = futures.ThreadPoolExecutor(self._width, thread_name_prefix="fluxwerk")

        def start(request: Request | str) -> futures.Future[Result]:
            return pool.submit(lambda: complete(self._result(making, request)))

        running: set[futures.Future[Result]] = set()
        try:
            for _ in self._keep_busy(running, requests, start):
                done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                running -= done
                yield from (one.result() for one in done)
        finally:
            self._unread.set()
            pool.shutdown(wait=False, cancel_futures=True)

    async def on_loop(
        self, make: Callable[[Request | str], Coroutine[None, None, Image]], requests: Iterable[Request | str]
    ) -> AsyncGenerator[Result]:
        """Make images on the running event loop and yield each as it finishes."""
        import asyncio  # noqa: PLC0415  (a blocking client never needs it)

        def start(request: Request | str) -> asyncio.Task[Result]:
            return asyncio.create_task(self._result(make, request))

        running: set[asyncio.Task[Result]] = set()
        try:
            for _ in self._keep_busy(running, requests, start):
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                running -= done
                for one in done:
                    yield one.result()
        finally:
            self._unread.set()
            for one in running:
                one.cancel()

    def _keep_busy(
        self, running: set[T], requests: Iterable[Request | str], start: Callable[[Request | str], T]
    ) -> Generator[None]:
        """Start requests, and yield whenever one that runs has to end first; what has ended is taken out meanwhile."""
        for request in requests:
            running.add(start(request))
            if len(running) >= self._width:
                yield
        while running:
            yield

    async def _result(
        self, make: Callable[[Request | str], Coroutine[None, None, Image]], request: Request | str
    ) -> Result:
        try:
            return Result(request, await make(request))
        except FluxwerkError as error:
            if isinstance(error, InDoubtError) and self._unread.is_set():
                # The result is no longer read, and it is about money.
                log.warning("%s", error)
            return Result(request, error=error)
