"""How tasks of a fleet reach this process: Procrastinate hands their ids over, and takes jobs of dead workers back.

Procrastinate's worker ends when its database is lost; a new one is started as soon as the database is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fluxwerk.ledger.postgresql import SESSION, session_values, with_network
from fluxwerk.server.state.fleet import RENDER, SILENCE_SECONDS

# Seconds between two signs of life of a worker, and between two looks for jobs whose worker gives none.
HEARTBEAT, STALLED_LOOK = 2.0, 2.0
# Seconds after which jobs are looked for at the latest: a notice of the database may be lost.
FETCH_EVERY = 1.0
RESTART_PAUSE = 1.0
# For how long a worker that ends may sign off: without its database it would try for a minute.
SIGN_OFF_SECONDS = 5.0

log = logging.getLogger("fluxwerk.server")


class JobQueue:
    """Has every task of some models worked on, `capacity` of them at a time, until it is stopped."""

    def __init__(self, url: str, models: Sequence[str], capacity: int, work: Callable[[str], Awaitable[None]]) -> None:
        self._url = url
        self._models = list(models)
        self._capacity = capacity
        self._work = work
        self._stopping = False
        self._worker: asyncio.Task[None] | None = None
        # What had not ended when it should have.
        self._left: set[asyncio.Task[None]] = set()
        # Its lines about every job are for its own users.
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)

    async def run(self) -> None:
        """Work until `stop`."""
        while not self._stopping:
            try:
                await self._serve()
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
            except Exception as error:  # noqa: BLE001  (the drivers' many errors mean one thing: try again)
                log.warning("The queue of tasks was lost (%s); it is opened again.", type(error).__name__)
            if not self._stopping:
                await asyncio.sleep(RESTART_PAUSE)

    def stop(self) -> None:
        """Take nothing more; what has begun goes on."""
        self._stopping = True
        if self._worker is not None:
            self._worker.cancel()

    async def _serve(self) -> None:
        from procrastinate import App, PsycopgConnector  # noqa: PLC0415  (an extra)

        # Fetching, finishing, listening and looking are what its connections do at a time.
        conninfo = with_network(self._url)
        app = App(connector=PsycopgConnector(conninfo=conninfo, min_size=1, max_size=6, configure=_configure))
        app.task(name=RENDER)(self._begin)
        try:
            await app.open_async()
            # Opening may have outlived the request to stop.
            if not self._stopping:
                await self._run_worker(app)
        finally:
            # Also a pool that was about to open: it would connect for ever, and the process would never end.
            await app.close_async()
            # Whoever still waits for a connection of the pool has got an error now.
            await asyncio.gather(*self._left, return_exceptions=True)

    async def _run_worker(self, app: Any) -> None:
        self._worker = asyncio.create_task(
            app.run_worker_async(
                queues=self._models,
                concurrency=self._capacity,
                install_signal_handlers=False,
                fetch_job_polling_interval=FETCH_EVERY,
                update_heartbeat_interval=HEARTBEAT,
                stalled_worker_timeout=SILENCE_SECONDS,
                delete_jobs="always",
            )
        )
        looking = asyncio.create_task(self._take_over(app, self._worker))
        try:
            # A task that ends cannot be cancelled again, and whoever waits for it directly would be held up with it.
            await asyncio.wait({self._worker})
            self._worker.result()
        finally:
            looking.cancel()
            self._worker.cancel()
            _, self._left = await asyncio.wait({looking, self._worker}, timeout=SIGN_OFF_SECONDS)

    async def _begin(self, identity: str) -> None:
        await self._work(identity)

    async def _take_over(self, app: Any, worker: asyncio.Task[None]) -> None:
        """Give the jobs of silent workers back to the queue, so that any worker takes them up, while `worker` runs."""
        # The pool may take a cancellation for a lost connection, and go on; the worker's end is certain.
        while not worker.done():
            try:
                stalled = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=SILENCE_SECONDS)
                for job in stalled:
                    log.warning("task %s is taken over from a worker that is silent.", job.task_kwargs["identity"])
                    await app.job_manager.retry_job(job)
            except Exception as error:  # noqa: BLE001  (as above; without this look the tasks of a dead worker would wait)
                log.warning("The jobs of silent workers cannot be looked for (%s).", type(error).__name__)
            await asyncio.sleep(STALLED_LOOK)


async def _configure(connection: Any) -> None:
    await connection.execute(SESSION, session_values())
    await connection.commit()
