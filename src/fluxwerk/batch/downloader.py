"""From ready to saved: downloads by nearest expiry, without a slot, into a storage that may be full for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from heapq import heappop, heappush
from typing import Any

from fluxwerk.batch.run import LONGEST_PAUSE, Run, RunProgress
from fluxwerk.drive import WALL, drive_async
from fluxwerk.errors import (
    APIStatusError,
    AuthenticationError,
    ConflictError,
    ConnectionFailedError,
    FluxwerkError,
    InsufficientCreditsError,
    InvalidUsageError,
    LinkExpiredError,
    NoResponseError,
    RateLimitError,
    StorageError,
    TaskFailedError,
    TaskTimeoutError,
    UntrustedURLError,
)
from fluxwerk.ledger.job import Job
from fluxwerk.ledger.ledger import Saved
from fluxwerk.protocol import flow

# Seconds for one download, with its repetitions and a fresh link if the first has died.
DOWNLOAD_TIMEOUT = 300.0
NEVER = float("inf")
COLLECT_LATER = "What was submitted is paid for; once the place is writable, `fluxwerk batch run` collects it."


class Downloader:
    """Fetches and saves what is ready; `backlog` counts what it has not saved yet."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ready: list[tuple[float, int, Job]] = []
        self._fetched: asyncio.Queue[tuple[Job, bytes]] = asyncio.Queue()
        self._work = asyncio.Event()
        self.backlog = 0

    def add(self, job: Job) -> None:
        """Take a ready job."""
        self.backlog += 1
        self._put(job)

    async def fetch(self) -> None:
        """Fetch the image whose link dies next, again and again, until cancelled."""
        while True:
            while not self._ready:
                self._work.clear()
                await self._work.wait()
            job = heappop(self._ready)[-1]
            await self._finish(self._fetch(job))

    async def store(self) -> None:
        """Save what was fetched, again and again, until cancelled."""
        while True:
            job, data = await self._fetched.get()
            await self._finish(self._store(job, data))

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """End the run in good order after an unexpected error: the job stays ready, and others are in flight."""
        try:
            await work
        except FluxwerkError:
            raise
        except Exception as error:  # noqa: BLE001  (it is raised when the run has ended)
            self._run.stop("an unexpected error", error)
            self._done()

    def _put(self, job: Job) -> None:
        heappush(self._ready, (job.expires or NEVER, job.id, job))
        self._work.set()

    def _done(self) -> None:
        self.backlog -= 1
        self._run.wake.set()

    async def _fetch(self, job: Job) -> None:
        run = self._run
        steps = flow.download(job.ready_status(), job.base or run.base, delivery_hosts=run.options.delivery_hosts)
        try:
            data = await drive_async(steps, run.send, WALL.now() + DOWNLOAD_TIMEOUT)
        except TaskTimeoutError as error:
            await self._again(job, error)
        except AuthenticationError as refusal:
            # The image is there; a run with a good key collects it.
            run.stop("the service refuses the key", refusal)
            self._done()
        except ConnectionFailedError as lost:
            run.stop("the images cannot be reached", lost)
            self._done()
        except (RateLimitError, InsufficientCreditsError) as refusal:
            # The image is there, and its task names a fresh link later.
            run.stop("the service refuses to be polled", refusal)
            self._done()
        except (LinkExpiredError, TaskFailedError, UntrustedURLError, APIStatusError, NoResponseError) as error:
            await self._fail(job, error)
        else:
            run.release("download")
            self._fetched.put_nowait((job, data))

    async def _again(self, job: Job, error: TaskTimeoutError) -> None:
        """Wait for a lost network: the image is paid for, and its task can name a fresh link for a long time."""
        self._run.hold("download", ConnectionFailedError(f"No image can be downloaded. {error}"))
        if self._run.error:
            self._done()
        else:
            self._put(job)

    async def _fail(
        self,
        job: Job,
        error: LinkExpiredError
        | TaskFailedError
        | InvalidUsageError
        | UntrustedURLError
        | APIStatusError
        | NoResponseError,
    ) -> None:
        run = self._run
        try:
            failed = await run.record(lambda: run.ledger.failed(job, error))
        except ConflictError:
            pass
        else:
            run.count_failure(failed, error)
        self._done()

    async def _store(self, job: Job, data: bytes) -> None:
        run = self._run
        try:
            saved = await self._save(job, data)
        except InvalidUsageError as fault:
            # No storage could take this name; a retry collects the image, once the name is free.
            await self._fail(job, fault)
            return
        if saved:
            try:
                done = await run.record(lambda: run.ledger.saved(job, saved))
            except ConflictError:
                pass
            else:
                run.report(RunProgress("saved", done, saved=saved))
        self._done()

    async def _save(self, job: Job, data: bytes) -> Saved | None:
        """Save the bytes, trying again while the storage takes nothing; `None` once the run has given up."""
        run, pause = self._run, self._run.options.first_pause
        while True:
            try:
                saved = await asyncio.to_thread(run.saver.save, job, job.ready_status(), data)
            except StorageError as error:
                run.hold("storage", error)
                await self._prove_storage()
                if run.error:
                    return None
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            else:
                run.release("storage")
                return saved

    async def _prove_storage(self) -> None:
        """End the run if nothing can be stored any more; a full disk or a lost network may pass and is waited out."""
        run = self._run
        try:
            await asyncio.to_thread(run.saver.check)
        except InvalidUsageError as wrong:
            lost = StorageError(f"Images can no longer be stored. {str(wrong).strip()}. {COLLECT_LATER}")
            run.stop("images can no longer be stored", lost)
        except StorageError:
            pass


def is_dead(job: Job) -> bool:
    """Whether the job's link has expired by now, as far as it names a time."""
    return job.expires is not None and job.expires <= time.time()
