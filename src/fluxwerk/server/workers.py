"""The background workers: they render accepted tasks and deliver webhooks, and never delay an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from fluxwerk import imagefile
from fluxwerk.engines import LiveEngine, OrderEndedError, RenderProgress, Report
from fluxwerk.errors import ConflictError, StorageError
from fluxwerk.server import telemetry
from fluxwerk.server.driving import FlowDriver
from fluxwerk.server.faults.endings import CANCELLED, Ending
from fluxwerk.server.fetch import Guard
from fluxwerk.server.handover import JobQueue
from fluxwerk.server.shares import Shares
from fluxwerk.server.state.fleet import FleetStore
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.telemetry import ServerSpan
from fluxwerk.types import HttpRequest, Response

T = TypeVar("T")
# How many webhooks may be on their way at a time: to one host, from one account, and in all.
HOST_DELIVERIES, ACCOUNT_DELIVERIES, DELIVERIES = 4, 64, 256
# Seconds until the rows are asked again that could not be read or written.
RETRY_ROWS = 1.0
# Seconds after which webhooks are looked for at the latest, and before which they are not looked for again.
LONGEST_PAUSE, SHORTEST_PAUSE = 2.0, 0.01
# Seconds between two looks for files that are to be removed.
REMOVE_SECONDS = 1.0
# Seconds between two records of a task's progress, where they go over a network.
PROGRESS_PAUSE = 0.5
# Seconds between two signs of life, and how many of them make a look for what was lost.
BEAT_SECONDS, RECOVER_TURNS = 1.0, 5

log = logging.getLogger("fluxwerk.server")


class BackgroundWorkers:
    """Runs the engine for each accepted task and delivers each webhook, until it is closed.

    Without an engine it delivers webhooks only, and other processes render.  Of a fleet's tasks it takes those for
    `models`, by default all that the engine serves.
    """

    def __init__(
        self, state: ServerState, engine: LiveEngine | None, guard: Guard, models: Collection[str] | None = None
    ) -> None:
        self._state = state
        self._engine = engine
        self._guard = guard
        self._served = _served(state, engine, models)
        self._driver = FlowDriver(blocks=state.store.blocks)
        self._rendering: dict[str, asyncio.Task[None]] = {}
        self._delivering: dict[str, asyncio.Task[None]] = {}
        self._shares = Shares(HOST_DELIVERIES, ACCOUNT_DELIVERIES, DELIVERIES)
        self._waiting = asyncio.Event()
        self._owed = asyncio.Event()
        # Whether webhooks may have been taken without this process knowing which.
        self._is_unsure = False
        self._queue: JobQueue | None = None
        self._loop: asyncio.AbstractEventLoop

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Work for as long as the context lasts, beginning with what another process left."""
        self._loop = asyncio.get_running_loop()
        async with self._engine.open() if self._engine else nullcontext():
            unsubscribe = self._state.subscribe(self)
            await self._driver.call(self._state.resume)
            store = self._state.store
            if isinstance(store, FleetStore):
                # Who submits as soon as the server answers finds that its models are served.
                await self._tried(partial(self._signs, store, recover=False), self._owed)
            loops = self._begin()
            try:
                yield
            finally:
                self._state.close()
                # Webhooks that are due now are left to the process that takes the state up.
                unsubscribe()
                if self._queue is not None:
                    self._queue.stop()
                await _stop([*self._rendering.values(), *self._delivering.values()])
                await _stop(loops)
                await self._leave()

    @property
    def served(self) -> list[str]:
        """The models that are rendered here."""
        return self._served

    @property
    def is_busy(self) -> bool:
        """Whether something is being rendered."""
        return bool(self._rendering)

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

    def _begin(self) -> list[asyncio.Task[None]]:
        store = self._state.store
        loops = [asyncio.create_task(self._take_webhooks())]
        if store.blocks:
            loops.append(asyncio.create_task(self._remove_files()))
        if isinstance(store, FleetStore):
            loops.append(asyncio.create_task(self._beat(store)))
            if self._engine is not None:
                self._queue = JobQueue(store.url, self._served, self._engine.capacity, self._work)
                loops.append(asyncio.create_task(self._queue.run()))
        elif self._engine is not None:
            loops.append(asyncio.create_task(self._take_tasks(self._engine)))
        return loops

    async def _take_tasks(self, engine: LiveEngine) -> None:
        """Take up one task after the other, as many at a time as the engine works on."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while len(self._rendering) < engine.capacity:
                job = await self._tried(self._state.claim, self._waiting)
                if job is None:
                    break
                self._start(self._rendering, job.task.id, self._render(engine, job), self._waiting)

    async def _work(self, identity: str) -> None:
        """Work on a task of the fleet until it has ended, or belongs to another worker."""
        engine = self._engine
        assert engine is not None, "only a process with an engine takes tasks"
        # A process that ends takes up nothing that it cannot take up at once.
        job = await self._until_done(lambda: self._state.begin(identity), until_closing=True)
        if job is not None:
            rendering = self._start(self._rendering, identity, self._render(engine, job), self._waiting)
            await asyncio.wait({rendering})

    async def _beat(self, store: FleetStore) -> None:
        """Give signs of life, stop what another worker has by now, and see that nothing is lost."""
        turn = 0
        while True:
            if self._state.is_closing and self._queue is not None:
                self._queue.stop()
            rendering = set(self._rendering)
            held = await self._tried(partial(self._signs, store, recover=turn % RECOVER_TURNS == 0), self._owed)
            for identity in rendering - held if held is not None else ():
                self._cancel(identity)
            turn += 1
            await asyncio.sleep(BEAT_SECONDS)

    def _signs(self, store: FleetStore, *, recover: bool) -> set[str]:
        """Give a sign of life, and return what this process holds."""
        kind = "api" if self._engine is None else "worker"
        # Who takes no more tasks announces no models, or submits would be accepted that nobody renders.
        models = [] if self._state.is_closing else self._served
        store.beat(self._state.process, kind, self._state.engine, models)
        if recover:
            store.recover()
        return store.held(self._state.process)

    async def _leave(self) -> None:
        store = self._state.store
        if isinstance(store, FleetStore):
            # Whoever cannot say so is missed after a while.
            with suppress(StorageError):
                await self._driver.call(lambda: store.leave(self._state.process))

    async def _take_webhooks(self) -> None:
        """Take up webhooks that are due, as many at a time as are delivered."""
        while True:
            # What was kept long enough goes also from a server that nobody asks.
            await self._tried(self._state.forget, self._owed)
            room = DELIVERIES - len(self._delivering)
            for job in await self._take(room) if room else ():
                self._start(self._delivering, job.task.id, self._deliver(job), self._owed)
            due = await self._tried(self._state.tasks.next_webhook, self._owed)
            pause = LONGEST_PAUSE if due is None or not room else due - self._state.clock()
            await _until(self._owed, min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE))
            self._owed.clear()

    async def _take(self, room: int) -> list[TaskRecord]:
        """Take so many webhooks; what a commit took that was not confirmed is given back first."""
        if self._is_unsure:
            state, delivering = self._state, set(self._delivering)
            returned = await self._tried(lambda: state.return_webhooks(delivering), self._owed)
            self._is_unsure = returned is None
        taken = await self._tried(partial(self._state.take_webhooks, room), self._owed)
        self._is_unsure = self._is_unsure or taken is None
        return taken or []

    async def _remove_files(self) -> None:
        """Remove what nothing names any more, beside the webhooks: a storage may take long for each file."""
        nobody = asyncio.Event()
        while True:
            await self._tried(self._state.remove_files, nobody)
            await asyncio.sleep(REMOVE_SECONDS)

    async def _render(self, engine: LiveEngine, job: TaskRecord) -> None:
        state = self._state
        state.metrics.observe("wait", job.model.name, state.clock() - job.accepted)
        try:
            with _span(job, f"render {job.model.name}", "consumer"):
                image = await engine.paint(job.order, self._reporter(job))
        except asyncio.CancelledError:
            if not state.is_closing:
                await self._until_done(lambda: state.conclude(job, CANCELLED, job.fence))
            raise
        except OrderEndedError as end:
            ending = Ending(end.word, end.details, paid=end.paid)
            await self._until_done(lambda: state.conclude(job, ending, job.fence))
        except ConflictError as lost:
            log.warning("%s", lost)
        except Exception as error:
            log.exception("task %s failed in the engine %s", job.task.id, engine.name)
            reason = f"{type(error).__name__}: {error}"
            await self._until_done(lambda: state.fail(job, reason))
        else:
            job.order = replace(job.order, output_format=_format(image) or job.order.output_format)
            # In a thread everywhere: the image is flushed to the disk.
            if not await self._until_done(lambda: state.finish(job, image), asyncio.to_thread):
                log.warning("the image of task %s comes too late: the task has ended or moved on.", job.task.id)

    async def _deliver(self, job: TaskRecord) -> None:
        flow = self._state.delivery(job)
        await self._driver.drive(flow, lambda request, budget: self._post(job, request, budget))

    async def _post(self, job: TaskRecord, request: HttpRequest, budget: float | None) -> Response:
        async with self._shares.hold(urlsplit(request.url).netloc, job.account):
            with _span(job, "deliver webhook", "client") as span:
                traced = replace(request, headers={**request.headers, **telemetry.present()})
                response = await self._guard.post(traced, budget)
                span.set(http__response__status_code=response.status)
                return response

    def _reporter(self, job: TaskRecord) -> Report:
        """Record progress at once where that takes microseconds, and at a bounded rate elsewhere."""

        def write(progress: RenderProgress) -> None:
            try:
                self._state.advance(job, progress)
            except StorageError as error:
                # Progress is worth no repetition, and no reason to end a task: its end is written until it is.
                self._state.condition.note(error)

        return ProgressWriter(write).report if self._state.store.database.blocks else write

    async def _until_done(
        self,
        act: Callable[[], T],
        run: Callable[[Callable[[], T]], Coroutine[None, None, T]] | None = None,
        *,
        until_closing: bool = False,
    ) -> T:
        """Ask the state until it could be asked; what has begun is finished, also when nobody waits any more."""
        while True:
            try:
                return await _finished((run or self._driver.call)(act))
            except StorageError as error:
                if until_closing and self._state.is_closing:
                    raise
                # An image that is made stays in memory until the storage takes it.
                self._state.condition.note(error)
                await asyncio.sleep(RETRY_ROWS)

    async def _tried(self, act: Callable[[], T], again: asyncio.Event) -> T | None:
        """Ask the state; what it cannot read or write now is asked again a little later."""
        try:
            return await self._driver.call(act)
        except StorageError as error:
            self._state.condition.note(error)
            self._loop.call_later(RETRY_ROWS, again.set)
            return None

    def _start(
        self,
        among: dict[str, asyncio.Task[None]],
        identity: str,
        work: Coroutine[None, None, None],
        then: asyncio.Event,
    ) -> asyncio.Task[None]:
        task = among[identity] = asyncio.create_task(work)

        def done(_: object) -> None:
            # A task that this process lost may have come back to it.
            if among.get(identity) is task:
                del among[identity]
            then.set()

        # A callback, because a task that is cancelled before it begins runs no `finally` of its own.
        task.add_done_callback(done)
        return task

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
            await asyncio.to_thread(self._write, newest)
            await asyncio.sleep(PROGRESS_PAUSE)
        self._writing = None


def _span(job: TaskRecord, name: str, kind: str) -> AbstractContextManager[ServerSpan]:
    """Continue the trace of a task's submit."""
    return telemetry.span(
        name, kind, job.trace, gen_ai__request__model=job.model.name, gen_ai__response__id=job.task.id
    )


def _served(state: ServerState, engine: LiveEngine | None, models: Collection[str] | None) -> list[str]:
    """Name the models that an engine renders here."""
    if engine is None:
        return []
    names = {model.name for model in state.models.values() if engine.facts(model) is not None}
    return sorted(names if models is None else names & set(models))


def _format(image: bytes) -> str | None:
    """Name the format of an image as orders do: a service upstream may choose another one than was expected."""
    found = imagefile.measure(image)
    return imagefile.SUFFIX.get(found.content_type) if found else None


async def _until(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _finished(work: Coroutine[None, None, T]) -> T:
    """Wait for work that has begun, also when nobody wants to wait any more."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
