"""The worker: carries every job of a ledger forward until nothing is left to carry, beside others if there are any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from fluxwerk.batch.downloader import Downloader, is_dead
from fluxwerk.batch.run import Keep, Prepare, Run, RunOptions, RunProgress, Tell
from fluxwerk.batch.submitter import Submitter
from fluxwerk.drive import AsyncSend
from fluxwerk.errors import ConflictError, FluxwerkError, StorageError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.job import UNFINISHED, Job, Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.ledger.writer import LedgerWriter
from fluxwerk.polling.history import PollingHistory

# Each lease is renewed three times in its life.
BEATS = 3
# So many images may wait for the storage, for each that is being fetched, before submitting pauses.
WAITING = 4
CAPPED = "the cap is reached"


class Worker:
    """One process's share of the work on a ledger.

    `send` carries HTTP requests to the service at `base`, `prepare` turns a job into what is sent, `keep` stores an
    image, `tell` hears of everything that happens, and `experience` knows how long tasks take.
    """

    def __init__(
        self,
        ledger: Ledger,
        send: AsyncSend,
        base: str,
        prepare: Prepare,
        keep: Keep,
        terms: RunOptions,
        tell: Tell,
        experience: PollingHistory | None = None,
    ) -> None:
        self._ledger = ledger
        self._parts = (send, base, prepare, keep, terms, tell, experience or PollingHistory())
        self._shift: Run | None = None
        self._main: asyncio.Task[Any] | None = None
        self._name = ""
        self._carried: set[asyncio.Task[None]] = set()
        self._orphans = True
        self._capped = False
        self._asked_to_stop = 0
        self._reason = ""

    async def run(self) -> str:
        """Work until nothing is left; returns why it ended early, or nothing.

        Raises what made it give up, when the service, the disk or the storage left it no choice.
        """
        scribe = LedgerWriter(self._ledger.database)
        self._shift = shift = Run(self._ledger, scribe, *self._parts)
        self._main = asyncio.current_task()
        self._carrier, self._collector = Submitter(shift), Downloader(shift)
        # Whoever asked before there was anything to stop is heard now.
        if self._asked_to_stop:
            shift.stop(self._reason)
        if self._asked_to_stop > 1:
            await scribe.close()
            return shift.stopping
        try:
            self._name = await scribe.write(lambda: self._ledger.slots.enrol(shift.terms.lease))
            await self._work_side_by_side()
        except asyncio.CancelledError:
            if self._asked_to_stop < 2:  # noqa: PLR2004  (somebody else's wish)
                raise
        except ExceptionGroup as troubles:
            raise troubles.exceptions[0] from None
        finally:
            with suppress(StorageError):
                await scribe.write(lambda: self._ledger.slots.retire(self._name))
            await scribe.close()
        if shift.error:
            raise shift.error
        return shift.stopping or (CAPPED if self._capped else "")

    def stop(self, reason: str = "stopped") -> None:
        """Submit nothing more and collect what is in flight; the second time stop at once, and lose nothing."""
        self._asked_to_stop += 1
        self._reason = self._reason or reason
        if self._shift:
            self._shift.stop(reason)
        if self._asked_to_stop == 2 and self._main:  # noqa: PLR2004  (a third time changes nothing)
            self._main.cancel()

    async def _work_side_by_side(self) -> None:
        async with asyncio.TaskGroup() as group:
            downloads = self._the_shift.terms.downloads
            helpers = [self._beat(), *(self._collector.fetch() for _ in range(downloads))]
            helpers += [self._collector.store() for _ in range(downloads)]
            started = [group.create_task(helper) for helper in helpers]
            await self._hire(group)
            for helper in started:
                helper.cancel()

    @property
    def _the_shift(self) -> Run:
        assert self._shift is not None
        return self._shift

    async def _beat(self) -> None:
        """Renew the lease, bury the dead, and look for what they left."""
        shift = self._the_shift
        while True:
            await asyncio.sleep(shift.terms.lease / BEATS)
            if not await shift.record(lambda: self._ledger.slots.beat(self._name)):
                # Declared dead after a long sleep: what was carried is fenced off, and this goes on as a new worker.
                self._name = await shift.record(lambda: self._ledger.slots.enrol(shift.terms.lease))
            await shift.record(self._ledger.slots.take_over)
            shift.crowded = bool((await shift.record(self._ledger.budget.sums)).count(Stage.PLANNED))
            self._orphans = True
            shift.wake.set()

    async def _hire(self, group: asyncio.TaskGroup) -> None:
        shift = self._the_shift
        while True:
            shift.wake.clear()
            hired = await self._adopt(group) + await self._claim(group)
            if not hired and not shift.wake.is_set():
                if self._is_idle() and self._is_over(await shift.record(self._ledger.budget.sums)):
                    return
                await self._nap()

    async def _adopt(self, group: asyncio.TaskGroup) -> int:
        """Take what was paid for and is carried by nobody, if there may be such."""
        shift = self._the_shift
        room = self._room()
        if not self._orphans or shift.error or room <= 0:
            return 0
        if shift.terms.offline:
            await shift.record(lambda: self._ledger.strayed(shift.base))
        jobs = await shift.record(lambda: self._ledger.adopt(self._name, room))
        self._orphans = len(jobs) == room
        for job in jobs:
            await self._take(group, job)
        return len(jobs)

    async def _take(self, group: asyncio.TaskGroup, job: Job) -> None:
        with suppress(ConflictError):
            if job.stage is Stage.READY and is_dead(job):
                dead = job
                job = await self._the_shift.record(lambda: self._ledger.expired(dead))
            if job.stage is Stage.READY:
                self._collector.add(job)
            else:
                self._start(group, self._carry(job))

    async def _claim(self, group: asyncio.TaskGroup) -> int:
        """Take planned jobs, if nothing speaks against it: each of them is submitted now."""
        shift = self._the_shift
        room = self._room()
        held = set(shift.holds) - {"service"}
        if shift.stopping or held or room <= 0 or self._cooling() > 0:
            return 0
        try:
            claim = await shift.record(lambda: self._ledger.submitting(self._name, room, shift.base))
        except ConflictError:
            return 0
        self._capped = claim.capped
        for job in claim.jobs:
            shift.tell(RunProgress("submitting", job))
            self._start(group, self._carry(job))
        return len(claim.jobs)

    async def _carry(self, job: Job) -> None:
        try:
            ready = await self._carrier.carry(job)
        except FluxwerkError:
            raise
        except Exception as trouble:  # noqa: BLE001  (the others are in flight, and it is raised when they have ended)
            self._the_shift.stop("something broke", trouble)
            return
        if ready:
            self._collector.add(ready)

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
        task = group.create_task(work)
        self._carried.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._carried.discard(task)
        self._the_shift.wake.set()

    def _room(self) -> int:
        terms = self._the_shift.terms
        if self._collector.backlog >= terms.downloads * WAITING:
            return 0
        return terms.concurrency - len(self._carried)

    def _cooling(self) -> float:
        return self._carrier.cool_until - time.monotonic()

    def _is_idle(self) -> bool:
        return not self._carried and not self._collector.backlog

    def _is_over(self, sums: Sums) -> bool:
        """Whether nothing is left: what others carry may still fall to us, if they die."""
        if self._the_shift.stopping:
            return True
        return not sums.count(*UNFINISHED) and (self._capped or not sums.count(Stage.PLANNED))

    async def _nap(self) -> None:
        shift = self._the_shift
        longest = shift.terms.lease / BEATS
        cooling = self._cooling()
        # Not `wait_for`, which in Python 3.11 swallows a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(min(longest, cooling) if cooling > 0 else longest):
                await shift.wake.wait()
