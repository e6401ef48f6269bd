"""From ready to saved: downloads by nearest expiry, apart from the slots, into a storage that may be full a while."""

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
    InvalidUsageError,
    LinkExpiredError,
    NoResponseError,
    StorageError,
    TaskFailedError,
    TaskTimeoutError,
    UntrustedURLError,
)
from fluxwerk.ledger.job import Job
from fluxwerk.ledger.ledger import Saved
from fluxwerk.protocol import flow

# One download, with its repetitions and a fresh link if the first has died.
PATIENCE = 300.0
NEVER = float("inf")


class Downloader:
    """Fetches and saves what is ready; `backlog` counts what it has not saved yet."""

    def __init__(self, shift: Run) -> None:
        self._shift = shift
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
        """Let what nobody expected end the run in good order: the job stays ready, and others are in flight."""
        try:
            await work
        except FluxwerkError:
            raise
        except Exception as trouble:  # noqa: BLE001  (it is raised when the run has ended)
            self._shift.stop("something broke", trouble)
            self._done()

    def _put(self, job: Job) -> None:
        heappush(self._ready, (job.expires or NEVER, job.id, job))
        self._work.set()

    def _done(self) -> None:
        self.backlog -= 1
        self._shift.wake.set()

    async def _fetch(self, job: Job) -> None:
        shift = self._shift
        steps = flow.download(job.ready_status(), job.base or shift.base)
        try:
            data = await drive_async(steps, shift.send, WALL.now() + PATIENCE)
        except TaskTimeoutError as trouble:
            await self._again(job, trouble)
        except AuthenticationError as refusal:
            # The image is there; whoever comes with a good key collects it.
            shift.stop("the service refuses the key", refusal)
            self._done()
        except ConnectionFailedError as lost:
            shift.stop("the images cannot be reached", lost)
            self._done()
        except (LinkExpiredError, TaskFailedError, UntrustedURLError, APIStatusError, NoResponseError) as error:
            await self._fail(job, error)
        else:
            shift.release("download")
            self._fetched.put_nowait((job, data))

    async def _again(self, job: Job, trouble: TaskTimeoutError) -> None:
        """Sit a lost network out: the image is paid for, and its task can name a fresh link for a long time."""
        self._shift.hold("download", ConnectionFailedError(f"No image can be downloaded. {trouble}"))
        if self._shift.error:
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
        shift = self._shift
        try:
            failed = await shift.record(lambda: shift.ledger.failed(job, error))
        except ConflictError:
            pass
        else:
            shift.count_failure(failed, error)
        self._done()

    async def _store(self, job: Job, data: bytes) -> None:
        shift = self._shift
        try:
            saved = await self._kept(job, data)
        except InvalidUsageError as fault:
            # No storage could take this name; a retry collects the image, once the way is free.
            await self._fail(job, fault)
            return
        if saved:
            try:
                done = await shift.record(lambda: shift.ledger.saved(job, saved))
            except ConflictError:
                pass
            else:
                shift.tell(RunProgress("saved", done, saved=saved))
        self._done()

    async def _kept(self, job: Job, data: bytes) -> Saved | None:
        """Save the bytes, trying again while the storage takes nothing; `None` once the run has given up."""
        shift, pause = self._shift, self._shift.terms.first_pause
        while True:
            try:
                saved = await asyncio.to_thread(shift.keep, job, job.ready_status(), data)
            except StorageError as trouble:
                shift.hold("storage", trouble)
                if shift.error:
                    return None
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            else:
                shift.release("storage")
                return saved


def is_dead(job: Job) -> bool:
    """Whether the job's link has died by now, as far as it said."""
    return job.expires is not None and job.expires <= time.time()
