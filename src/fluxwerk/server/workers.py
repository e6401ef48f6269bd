"""The background workers: they render accepted tasks and deliver webhooks, and never delay an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from fluxwerk import imagefile
from fluxwerk.drive import drive_async
from fluxwerk.engines import LiveEngine, OrderEndedError, RenderProgress, Report
from fluxwerk.errors import ConflictError, StorageError
from fluxwerk.server.faults.endings import CANCELLED, Ending
from fluxwerk.server.fetch import Guard
from fluxwerk.server.shares import Shares
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import HttpRequest, Response

T = TypeVar("T")
# How many webhooks may be on their way at a time: to one host, from one account, and in all.
HOST_DELIVERIES, ACCOUNT_DELIVERIES, DELIVERIES = 4, 64, 256
# Seconds until the rows are looked at again that could not be read or written.
RETRY_ROWS = 1.0
# Seconds after which webhooks are looked for at the latest.
LOOK_EVERY = 60.0
SHORTEST_PAUSE = 0.01
# Seconds between two records of a task's progress, where they go over a network.
PROGRESS_PAUSE = 0.5

log = logging.getLogger("fluxwerk.server")


class BackgroundWorkers:
    """Runs the engine for each accepted task and delivers each webhook, until it is closed."""

    def __init__(self, state: ServerState, engine: LiveEngine, guard: Guard) -> None:
        self._state = state
        self._engine = engine
        self._guard = guard
        self._rendering: dict[str, asyncio.Task[None]] = {}
        self._delivering: dict[str, asyncio.Task[None]] = {}
        self._shares = Shares(HOST_DELIVERIES, ACCOUNT_DELIVERIES, DELIVERIES)
        self._waiting = asyncio.Event()
        self._owed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Work for as long as the context lasts, beginning with what another process left."""
        self._loop = asyncio.get_running_loop()
        async with self._engine.open():
            unsubscribe = self._state.subscribe(self)
            self._state.resume()
            loops = [asyncio.create_task(self._take_tasks()), asyncio.create_task(self._take_webhooks())]
            try:
                yield
            finally:
                self._state.close()
                # Webhooks that are due now are left to the process that takes the state up.
                unsubscribe()
                await _stop([*loops, *self._rendering.values(), *self._delivering.values()])

    def accepted(self, _: TaskRecord) -> None:
        """Look for a task that waits."""
        self._wake(self._waiting)

    def cancelled(self, job: TaskRecord) -> None:
        """Stop the engine, if it renders this task."""
        self._loop.call_soon_threadsafe(self._cancel, job.task.id)

    def ended(self, job: TaskRecord) -> None:
        """Look for webhooks that are due, if the submit asked for one."""
        if job.webhook is not None:
            self._wake(self._owed)

    def resumed(self) -> None:
        """Look for both."""
        self._wake(self._waiting)
        self._wake(self._owed)

    async def _take_tasks(self) -> None:
        """Take up one task after the other, as many at a time as the engine works on."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while len(self._rendering) < self._engine.capacity:
                job = await self._tried(self._state.claim, self._waiting)
                if job is None:
                    break
                self._start(self._rendering, job.task.id, self._render(job), self._waiting)

    async def _take_webhooks(self) -> None:
        """Take up webhooks that are due, as many at a time as are delivered."""
        while True:
            room = DELIVERIES - len(self._delivering)
            taken = await self._tried(partial(self._state.take_webhooks, room), self._owed) if room else None
            for job in taken or ():
                self._start(self._delivering, job.task.id, self._deliver(job), self._owed)
            due = await self._tried(self._state.tasks.next_webhook, self._owed)
            pause = LOOK_EVERY if due is None or not room else due - self._state.clock()
            await _until(self._owed, min(max(pause, SHORTEST_PAUSE), LOOK_EVERY))
            self._owed.clear()

    async def _render(self, job: TaskRecord) -> None:
        state = self._state
        try:
            image = await self._engine.paint(job.order, self._reporter(job))
        except asyncio.CancelledError:
            if not state.is_closing:
                await self._do(lambda: state.conclude(job, CANCELLED, job.fence))
            raise
        except OrderEndedError as end:
            ending = Ending(end.word, end.details, paid=end.paid)
            await self._do(lambda: state.conclude(job, ending, job.fence))
        except ConflictError as lost:
            log.warning("%s", lost)
        except Exception as error:
            log.exception("task %s failed in the engine %s", job.task.id, self._engine.name)
            reason = f"{type(error).__name__}: {error}"
            await self._do(lambda: state.fail(job, reason))
        else:
            job.order = replace(job.order, output_format=_format(image) or job.order.output_format)
            await _finished(asyncio.to_thread(state.finish, job, image))

    async def _deliver(self, job: TaskRecord) -> None:
        flow = self._state.delivery(job)
        await drive_async(flow, lambda request, budget: self._post(job, request, budget))

    async def _post(self, job: TaskRecord, request: HttpRequest, budget: float | None) -> Response:
        async with self._shares.hold(urlsplit(request.url).netloc, job.account):
            return await self._guard.post(request, budget)

    def _reporter(self, job: TaskRecord) -> Report:
        """Record progress at once where that takes microseconds, and at a bounded rate elsewhere."""

        def write(progress: RenderProgress) -> None:
            self._state.advance(job, progress)

        return ProgressWriter(write).report if self._state.store.database.blocks else write

    async def _do(self, act: Callable[[], T]) -> T:
        """Ask the state, in a thread if it may wait for the network."""
        return await asyncio.to_thread(act) if self._state.store.database.blocks else act()

    async def _tried(self, act: Callable[[], T], again: asyncio.Event) -> T | None:
        """Ask the state; what it cannot read or write now is asked again a little later."""
        try:
            return await self._do(act)
        except StorageError as error:
            self._state.note_storage(error)
            self._loop.call_later(RETRY_ROWS, again.set)
            return None

    def _start(
        self,
        among: dict[str, asyncio.Task[None]],
        identity: str,
        work: Coroutine[None, None, None],
        then: asyncio.Event,
    ) -> None:
        def done(_: object) -> None:
            among.pop(identity, None)
            then.set()

        task = among[identity] = asyncio.create_task(work)
        # A callback, because a task that is cancelled before it begins runs no `finally` of its own.
        task.add_done_callback(done)

    def _cancel(self, identity: str) -> None:
        rendering = self._rendering.get(identity)
        if rendering is not None:
            rendering.cancel()

    def _wake(self, event: asyncio.Event) -> None:
        """Set an event from any thread."""
        self._loop.call_soon_threadsafe(event.set)


class ProgressWriter:
    """Writes the newest progress of one task, at most twice a second."""

    def __init__(self, write: Report) -> None:
        self._write = write
        self._newest: RenderProgress | None = None
        self._writing: asyncio.Task[None] | None = None

    def report(self, progress: RenderProgress) -> None:
        """Take what is newest; what it replaces is never written."""
        self._newest = progress
        if self._writing is None:
            self._writing = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._newest is not None:
            newest, self._newest = self._newest, None
            # Progress is worth no repetition: the next one comes soon.
            with suppress(StorageError):
                await asyncio.to_thread(self._write, newest)
            await asyncio.sleep(PROGRESS_PAUSE)
        self._writing = None


async def _until(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _finished(work: Coroutine[None, None, None]) -> None:
    """Wait for work that has begun, also when nobody wants to wait any more."""
    running = asyncio.ensure_future(work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await running
        raise


def _format(image: bytes) -> str | None:
    """Name the format of an image as orders do: a service upstream may choose another one than was expected."""
    found = imagefile.measure(image)
    return imagefile.SUFFIX.get(found.content_type) if found else None


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
