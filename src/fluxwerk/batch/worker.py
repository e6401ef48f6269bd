"""The worker: it submits, awaits and saves the jobs of a ledger until none is left, beside other workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from math import inf
from typing import Any

from fluxwerk.batch.downloader import Downloader, is_dead
from fluxwerk.batch.run import EndReason, ImageSaver, OnDoubt, OnProgress, Prepare, Run, RunEnd, RunOptions, RunProgress
from fluxwerk.batch.settler import Settler
from fluxwerk.batch.submitter import Submitter
from fluxwerk.drive import WALL, AsyncSend, drive_async
from fluxwerk.errors import ConflictError, FluxwerkError, StorageError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.job import UNFINISHED, Job, Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.ledger.writer import LedgerWriter
from fluxwerk.polling.history import PollingHistory
from fluxwerk.protocol import flow

# How often each lease is renewed in its life.
RENEWALS = 3
# How many images may wait for the storage, for each download, before submitting pauses.
BACKLOG = 4
# Seconds for the answer that says whether a server keeps keys.
PROMISE_TIMEOUT = 5.0
CAP_REACHED = "the cap is reached"
# Of `timeout`: the share, and at most how many seconds, that are left for what is in flight when submitting ends.
RESERVE, LONGEST_RESERVE = 0.25, 30.0


class Worker:
    """One process's share of the work on a ledger.

    `send` carries HTTP requests to the service at `base`, `prepare` turns a job into what is sent, `saver` stores an
    image, `on_progress` is called with everything that happens, and `history` knows how long tasks take.
    """

    def __init__(
        self,
        ledger: Ledger,
        send: AsyncSend,
        base: str,
        prepare: Prepare,
        saver: ImageSaver,
        options: RunOptions,
        on_progress: OnProgress,
        history: PollingHistory | None = None,
    ) -> None:
        self._ledger = ledger
        self._parts = (send, base, prepare, saver, options, on_progress, history or PollingHistory())
        self._run: Run | None = None
        self._main: asyncio.Task[Any] | None = None
        self._name = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._orphans = True
        self._capped = False
        self._stop_requests = 0
        self._stop_text = ""
        self._is_cut = False
        self._began = time.monotonic()

    async def run(self) -> RunEnd:
        """Work until nothing is left, and return why it ended.

        Raises `InvalidUsageError` or `StorageError` before the first submit if no image can be stored, and later what
        made it give up, when the service, the disk or the storage left it no choice.
        """
        writer = LedgerWriter(self._ledger.database)
        self._run = run = Run(self._ledger, writer, *self._parts)
        self._main = main = asyncio.current_task()
        self._submitter, self._downloader, self._settler = Submitter(run), Downloader(run), Settler(run)
        # A stop may have been asked for before there was anything to stop.
        if self._stop_requests:
            run.stop(self._stop_text, reason=EndReason.STOPPED)
            run.stop_requested.set()
        if self._stop_requests > 1:
            await writer.close()
            return self._end()
        try:
            self._name = await writer.write(lambda: self._ledger.leases.register(run.options.lease))
            await self._prove_storage()
            await self._ask_for_promise()
            await self._work_side_by_side()
        except asyncio.CancelledError:
            # Unless it was cancelled from outside.
            if not self._is_cut or main is None:
                raise
            main.uncancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            # What follows must not be cut short.
            self._main = None
            with suppress(StorageError):
                await writer.write(lambda: self._ledger.doubts.release(self._name))
                await writer.write(lambda: self._ledger.leases.unregister(self._name))
            await writer.close()
        if run.error:
            raise run.error
        return self._end()

    def stop(self, text: str = "stopped") -> None:
        """Submit nothing more and collect what is in flight during `drain`; the second time stop at once."""
        self._stop_requests += 1
        self._stop_text = self._stop_text or text
        if self._run:
            self._run.stop(self._stop_text, reason=EndReason.STOPPED)
            self._run.stop_requested.set()
        if self._stop_requests > 1:
            self._cut()

    def wake(self) -> None:
        """Look for planned jobs at once, because somebody has planned some."""
        if self._run:
            self._run.wake.set()

    def _cut(self) -> None:
        """End the run at once; what was submitted stays in the ledger, a submit without an answer in doubt."""
        if self._main and not self._is_cut:
            self._is_cut = True
            self._main.cancel()

    def _end(self) -> RunEnd:
        end = self._current.end
        if end and end.reason is EndReason.TIMED_OUT and not self._is_cut and not self._is_work_left():
            end = None
        if end:
            return end
        return RunEnd(EndReason.CAPPED, CAP_REACHED) if self._capped else RunEnd()

    def _is_work_left(self) -> bool:
        return bool(self._ledger.budget.sums().count(Stage.PLANNED, *UNFINISHED))

    async def _prove_storage(self) -> None:
        """Refuse to buy what could not be kept."""
        if self._is_work_left():
            await asyncio.to_thread(self._current.saver.check)

    async def _ask_for_promise(self) -> None:
        """Hear whether the server keeps the keys of submits, if there are doubts that this would settle."""
        run = self._current
        if self._ledger.budget.sums().count(Stage.DOUBTFUL):
            with suppress(FluxwerkError):
                await drive_async(flow.ask_credits(run.base), run.send, WALL.now() + PROMISE_TIMEOUT)

    async def _watch_time(self) -> None:
        """Stop submitting shortly before `timeout`, and everything when it is over."""
        run = self._current
        if run.options.timeout is None:
            return
        reserve = min(run.options.timeout * RESERVE, LONGEST_RESERVE)
        left = self._began + run.options.timeout - time.monotonic()
        await asyncio.sleep(max(0.0, left - reserve))
        run.stop(f"the timeout of {run.options.timeout:g} s is reached", reason=EndReason.TIMED_OUT)
        await asyncio.sleep(min(left, reserve))
        self._cut()

    async def _watch_drain(self) -> None:
        """Give what is in flight `drain` seconds after a request to stop: a task may never end."""
        run = self._current
        await run.stop_requested.wait()
        await asyncio.sleep(run.options.drain)
        self._cut()

    async def _work_side_by_side(self) -> None:
        async with asyncio.TaskGroup() as group:
            downloads = self._current.options.downloads
            helpers = [self._renew_lease(), self._watch_time(), self._watch_drain()]
            helpers += [self._downloader.fetch() for _ in range(downloads)]
            helpers += [self._downloader.store() for _ in range(downloads)]
            started = [group.create_task(helper) for helper in helpers]
            await self._dispatch(group)
            for helper in started:
                helper.cancel()

    @property
    def _current(self) -> Run:
        assert self._run is not None
        return self._run

    async def _renew_lease(self) -> None:
        """Renew the lease, end the workers whose lease ran out, and look for what they left."""
        run = self._current
        while True:
            await asyncio.sleep(run.options.lease / RENEWALS)
            if not await run.record(lambda: self._ledger.leases.renew(self._name)):
                # Taken for dead after a long sleep: its jobs are fenced off, and this goes on as a new worker.
                self._name = await run.record(lambda: self._ledger.leases.register(run.options.lease))
            await run.record(self._ledger.leases.expire_dead)
            run.crowded = bool((await run.record(self._ledger.budget.sums)).count(Stage.PLANNED))
            self._orphans = True
            run.wake.set()

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        run = self._current
        while True:
            run.wake.clear()
            started = await self._adopt(group) + await self._repeat(group) + await self._claim(group)
            if started or run.wake.is_set():
                continue
            pause = None
            if self._is_idle():
                if self._settler.is_due:
                    pause = await self._settler.settle(self._name)
                elif self._is_over(await run.record(self._ledger.budget.sums)):
                    if not await self._settler.is_wanted():
                        return
                    pause = 0.0
            if pause != 0.0:
                await self._sleep(pause)

    async def _adopt(self, group: asyncio.TaskGroup) -> int:
        """Take jobs that were paid for and have no worker, if there may be such."""
        run = self._current
        room = self._room()
        if not self._orphans or run.error or room <= 0:
            return 0
        if run.options.offline:
            await run.record(lambda: self._ledger.replan_offline(run.base))
        jobs = await run.record(lambda: self._ledger.adopt(self._name, room))
        self._orphans = len(jobs) == room
        for job in jobs:
            await self._take(group, job)
        return len(jobs)

    async def _take(self, group: asyncio.TaskGroup, job: Job) -> None:
        with suppress(ConflictError):
            if job.stage is Stage.READY and is_dead(job):
                dead = job
                job = await self._current.record(lambda: self._ledger.expired(dead))
            if job.stage is Stage.READY:
                self._downloader.add(job)
            else:
                self._start(group, self._process(job))

    async def _repeat(self, group: asyncio.TaskGroup) -> int:
        """Send submits in doubt again, each once a run, where the server takes them for the same ones."""
        run = self._current
        seconds = run.promises.seconds(run.base)
        if not seconds or run.end or run.holds or run.options.on_doubt is not OnDoubt.SETTLE:
            return 0
        jobs = await run.record(lambda: self._ledger.repeating(self._name, run.base, seconds, run.repeated))
        for job in jobs:
            run.repeated.add(job.id)
            run.report(RunProgress("submitting", job))
            self._start(group, self._process(job))
        return len(jobs)

    async def _claim(self, group: asyncio.TaskGroup) -> int:
        """Take planned jobs, if nothing speaks against it: each of them is submitted now."""
        run = self._current
        room = self._room()
        held = set(run.holds) - {"service"}
        if run.end or held or room <= 0 or self._cooling() > 0 or self._settler.is_due:
            return 0
        try:
            claim = await run.record(lambda: self._ledger.submitting(self._name, room, run.base))
        except ConflictError:
            return 0
        self._capped = claim.capped
        for job in claim.jobs:
            run.report(RunProgress("submitting", job))
            self._start(group, self._process(job))
        return len(claim.jobs)

    async def _process(self, job: Job) -> None:
        try:
            ready = await self._submitter.process(job)
        except FluxwerkError:
            raise
        except Exception as error:  # noqa: BLE001  (the others are in flight, and it is raised when they have ended)
            self._current.stop("an unexpected error", error)
            return
        if ready:
            self._downloader.add(ready)

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._current.wake.set()

    def _room(self) -> int:
        options = self._current.options
        if self._downloader.backlog >= options.downloads * BACKLOG:
            return 0
        return options.concurrency - len(self._tasks)

    def _cooling(self) -> float:
        return self._submitter.cool_until - time.monotonic()

    def _is_idle(self) -> bool:
        return not self._tasks and not self._downloader.backlog

    def _is_over(self, sums: Sums) -> bool:
        """Whether nothing is left: the jobs of other workers may still fall to this one, if those die."""
        if self._current.end:
            return True
        return not sums.count(*UNFINISHED) and (self._capped or not sums.count(Stage.PLANNED))

    async def _sleep(self, pause: float | None = None) -> None:
        run = self._current
        longest = min(run.options.lease / RENEWALS, inf if pause is None else pause)
        cooling = self._cooling()
        # Not `wait_for`, which in Python 3.11 swallows a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(min(longest, cooling) if cooling > 0 else longest):
                await run.wake.wait()
