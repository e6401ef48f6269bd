"""The background workers: they render accepted tasks and deliver webhooks, and never delay an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from fluxwerk import imagefile
from fluxwerk.drive import drive_async
from fluxwerk.engines import Canvas, LiveEngine, OrderEndedError
from fluxwerk.server.faults.endings import CANCELLED, Ending
from fluxwerk.server.fetch import Guard
from fluxwerk.server.shares import Shares
from fluxwerk.server.state.accounts import TaskRecord
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import HttpRequest, Response

# How many webhooks may be on their way at a time: to one host, from one account, and in all.
HOST_DELIVERIES, ACCOUNT_DELIVERIES, DELIVERIES = 4, 64, 256

log = logging.getLogger("fluxwerk.server")


class BackgroundWorkers:
    """Runs the engine for each accepted task and delivers each webhook, until it is closed."""

    def __init__(self, state: ServerState, engine: LiveEngine, guard: Guard) -> None:
        self._state = state
        self._engine = engine
        self._guard = guard
        self._rendering: dict[str, asyncio.Task[None]] = {}
        self._delivering: set[asyncio.Task[None]] = set()
        self._shares = Shares(HOST_DELIVERIES, ACCOUNT_DELIVERIES, DELIVERIES)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Work for as long as the context lasts, beginning with what another process left."""
        async with self._engine.open():
            unsubscribe = self._state.subscribe(self)
            self._state.resume()
            try:
                yield
            finally:
                self._state.close()
                # Webhooks that are due now are left to the process that takes the state up.
                unsubscribe()
                await _stop([*self._rendering.values(), *self._delivering])

    def accepted(self, job: TaskRecord) -> None:
        """Start rendering."""
        rendering = self._rendering[job.task.id] = asyncio.create_task(self._render(job))
        # A callback, because a task that is cancelled before it begins runs no `finally` of its own.
        rendering.add_done_callback(lambda _: self._rendering.pop(job.task.id, None))

    def cancelled(self, job: TaskRecord) -> None:
        """Stop the engine, if it renders this task."""
        rendering = self._rendering.get(job.task.id)
        if rendering is not None:
            rendering.cancel()

    def ended(self, job: TaskRecord) -> None:
        """Start delivering the webhook, if the submit asked for one."""
        if job.webhook is not None:
            self._keep(self._deliver(job))

    async def _render(self, job: TaskRecord) -> None:
        state = self._state
        try:
            image = await self._engine.paint(job.order, lambda progress: state.advance(job, progress))
        except asyncio.CancelledError:
            if not state.is_closing:
                state.conclude(job, CANCELLED)
            raise
        except OrderEndedError as end:
            state.conclude(job, Ending(end.word, end.details, paid=end.paid))
        except Exception as error:
            log.exception("task %s failed in the engine %s", job.task.id, self._engine.name)
            state.fail(job, f"{type(error).__name__}: {error}")
        else:
            job.order = replace(job.order, output_format=_format(image) or job.order.output_format)
            state.finish(job, image)
            # The inputs are not needed any more, and may be many megabytes.
            canvas = job.order.canvas and Canvas(b"", None, job.order.canvas.offset)
            job.order = replace(job.order, references=(), canvas=canvas)

    async def _deliver(self, job: TaskRecord) -> None:
        await asyncio.sleep(max(0.0, (job.ready_at or 0.0) - self._state.clock()))
        flow = self._state.delivery(job)
        if flow is not None:
            await drive_async(flow, lambda request, budget: self._post(job, request, budget))

    async def _post(self, job: TaskRecord, request: HttpRequest, budget: float | None) -> Response:
        async with self._shares.hold(urlsplit(request.url).netloc, job.account.digest):
            return await self._guard.post(request, budget)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._delivering.add(task)
        task.add_done_callback(self._delivering.discard)


def _format(image: bytes) -> str | None:
    """Name the format of an image as orders do: a service upstream may choose another one than was expected."""
    found = imagefile.measure(image)
    return imagefile.SUFFIX.get(found.content_type) if found else None


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
