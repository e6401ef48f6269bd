"""The engine and the webhooks at work: jobs in, pictures and notices out, never in the way of an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace

from fluxwerk.drive import drive_async
from fluxwerk.engines import Canvas, LiveEngine, RenderProgress
from fluxwerk.server.fetch import Guard
from fluxwerk.server.handlers.tasks import CANCELLED
from fluxwerk.server.router import Service
from fluxwerk.server.state.accounts import TaskRecord
from fluxwerk.types import HttpRequest, Response

# So many webhooks are on their way at a time; the others wait their turn.
DELIVERIES = 32

log = logging.getLogger("fluxwerk.server")


class BackgroundWorkers:
    """Runs the engine for each job and delivers each webhook, from the service's callbacks, until it is closed."""

    def __init__(self, service: Service, engine: LiveEngine, guard: Guard) -> None:
        self._service = service
        self._engine = engine
        self._guard = guard
        self._rendering: dict[str, asyncio.Task[None]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._doors = asyncio.Semaphore(DELIVERIES)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Work for as long as the context lasts, beginning with what another process left."""
        async with self._engine.open():
            service = self._service
            service.on_accept, service.on_cancel, service.on_end = self._render, self._give_up, self._tell
            service.resume()
            try:
                yield
            finally:
                service.closing = True
                service.on_end = _nobody
                await _stop([*self._rendering.values(), *self._telling])

    def _render(self, job: TaskRecord) -> None:
        self._rendering[job.task.id] = asyncio.create_task(self._make(job))

    def _give_up(self, job: TaskRecord) -> None:
        rendering = self._rendering.get(job.task.id)
        if rendering is not None:
            rendering.cancel()

    def _tell(self, job: TaskRecord) -> None:
        if job.notice is not None:
            self._keep(self._deliver(job))

    async def _make(self, job: TaskRecord) -> None:
        service = self._service
        try:
            picture = await self._engine.paint(job.order, lambda progress: _advance(service, job, progress))
        except asyncio.CancelledError:
            if not service.closing:
                service.conclude(job, CANCELLED)
            raise
        except Exception as trouble:
            log.exception("task %s failed in the engine %s", job.task.id, self._engine.name)
            service.fail(job, f"{type(trouble).__name__}: {trouble}")
        else:
            service.finish(job, picture)
            # What went in is done with, and may be many megabytes.
            canvas = job.order.canvas and Canvas(b"", None, job.order.canvas.offset)
            job.order = replace(job.order, references=(), canvas=canvas)
        finally:
            del self._rendering[job.task.id]

    async def _deliver(self, job: TaskRecord) -> None:
        await asyncio.sleep(max(0.0, (job.ready_at or 0.0) - self._service.clock()))
        flow = self._service.tell(job)
        if flow is not None:
            await drive_async(flow, self._post)

    async def _post(self, request: HttpRequest, budget: float | None) -> Response:
        async with self._doors:
            return await self._guard.tell(request, budget)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _advance(service: Service, job: TaskRecord, progress: RenderProgress) -> None:
    if job.ready_at is None:
        service.advance(job, progress)


def _nobody(_: TaskRecord) -> None:
    """Tell nobody: whoever takes the state up will."""


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
