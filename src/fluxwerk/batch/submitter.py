"""From submitting to ready: one POST for each transition to `submitting`, then polls, and a transition after each."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from fluxwerk import catalog
from fluxwerk.batch.run import OnDoubt, Run, RunProgress
from fluxwerk.catalog.rows import Model
from fluxwerk.drive import WALL, drive_async
from fluxwerk.errors import (
    APIStatusError,
    AuthenticationError,
    ConflictError,
    ConnectionFailedError,
    FluxwerkError,
    InDoubtError,
    InsufficientCreditsError,
    InvalidUsageError,
    LinkExpiredError,
    NoResponseError,
    RateLimitError,
    TaskFailedError,
    TaskTimeoutError,
    TransportError,
    UntrustedURLError,
)
from fluxwerk.ledger.callback import address
from fluxwerk.ledger.inputs import needs_files
from fluxwerk.ledger.job import Job, Stage, to_micro
from fluxwerk.protocol import flow, retry
from fluxwerk.types import Flow, Request, Task

PERHAPS_TWICE = "submitted again, as --on-doubt resubmit asks, though it may have been charged"
NO_POLL_ANSWERED = "The service answered no poll. What was submitted is paid for, and the next run asks for it again."
SIGNED_EXPIRY = "%Y-%m-%dT%H:%M:%SZ"
TASK_ENDED = (TaskFailedError, TaskTimeoutError, UntrustedURLError, LinkExpiredError)


class Submitter:
    """Brings jobs to ready, many at a time; before `cool_until`, which the service asked for, it submits nothing."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waves = 0
        self.cool_until = 0.0

    async def process(self, job: Job) -> Job | None:
        """Submit the job if it was not, wait for it, and return it when it is ready; `None` if it went elsewhere."""
        try:
            going: Job | None = job
            if job.stage is Stage.SUBMITTING:
                going = await self._submit(job)
            return await self._wait(going) if going else None
        except ConflictError:
            # Another worker has taken it over.
            return None

    async def _submit(self, job: Job) -> Job | None:
        run = self._run
        try:
            model, request = await self._prepared(job)
            steps = self._steps(job, model, request)
            task = await drive_async(steps, run.send, WALL.now() + run.options.submit_timeout)
        except (ConnectionFailedError, RateLimitError) as back:
            self._cool(back)
            await self._withdraw(job, str(back))
        except InDoubtError as lost:
            if not isinstance(lost.__cause__, TransportError):
                self._answered()
            await self._doubt(job, str(lost))
        except (AuthenticationError, InsufficientCreditsError) as refusal:
            self._answered()
            await self._withdraw(job, str(refusal))
            run.stop("the service accepts no submits", refusal)
        except (APIStatusError, InvalidUsageError) as refusal:
            if isinstance(refusal, InvalidUsageError) and job.id in run.repeated:
                # It cannot be sent again, which says nothing about the submit that left.
                await self._doubt(job, str(refusal))
                return None
            self._answered()
            error = refusal
            failed = await run.record(lambda: run.ledger.refused(job, error))
            run.count_failure(failed, refusal)
        else:
            self._answered()
            return await self._accept(job, task)
        return None

    def _steps(self, job: Job, model: Model, request: Request) -> Flow[Task]:
        """Send it once, since a repetition is a new intent; or again under the key with which it left before."""
        run = self._run
        if job.id in run.repeated:
            return flow.repeat(model, request, run.base, job.key, run.promises)
        return flow.submit(model, request, run.base, key=job.key, promises=run.promises, once=True)

    def _answered(self) -> None:
        """Note that the service takes submits again."""
        self._waves = 0
        self._run.release("service")

    async def _prepared(self, job: Job) -> tuple[Model, Request]:
        # Before the submit leaves: an image whose name cannot be would be paid for and fail.
        self._run.saver.check_job(job)
        prepare = self._run.prepare
        model, request = await asyncio.to_thread(prepare, job) if needs_files(job) else prepare(job)
        options = self._run.options
        if options.webhook and job.token and catalog.takes_webhooks(model):
            hook = {"webhook_url": address(options.webhook, job.token)}
            proof = {"webhook_secret": options.webhook_secret} if options.webhook_secret else {}
            request = Request(request.model, {**request.fields, **hook, **proof})
        return model, request

    async def _accept(self, job: Job, task: Task) -> Job | None:
        run = self._run
        try:
            accepted = await run.record(lambda: run.ledger.submitted(job, task))
        except FluxwerkError as error:
            raise type(error)(f"{error} {_accepted_as(job, task)}") from None
        except asyncio.CancelledError:
            # The run is cut while the ledger cannot be written: only this line knows the task.
            run.report(RunProgress("held", text=_accepted_as(job, task)))
            raise
        run.doubts_in_a_row = 0
        if accepted:
            run.report(RunProgress("submitted", accepted))
        # The ledger keeps no sizes, and how long a task takes depends on them.
        return replace(accepted, task=task) if accepted else None

    async def _withdraw(self, job: Job, reason: str) -> None:
        run = self._run
        await run.record(lambda: run.ledger.withdrawn(job, reason))

    async def _doubt(self, job: Job, reason: str) -> None:
        run = self._run
        await run.record(lambda: run.ledger.doubted(job, reason))
        run.count_doubt(job, reason)
        if run.options.on_doubt is OnDoubt.RESUBMIT:
            with suppress(ConflictError):
                await run.record(lambda: run.ledger.settle_resubmit(job.id, PERHAPS_TWICE))

    def _cool(self, back: ConnectionFailedError | RateLimitError) -> None:
        """Pause all submits together: one refusal speaks for all that were under way."""
        now = time.monotonic()
        asked = back.retry_after if isinstance(back, RateLimitError) else None
        if isinstance(back, TransportError):
            self._run.hold("service", back)
        if now >= self.cool_until:
            self._waves += 1
        pause = retry.backoff(self._waves) if asked is None else asked
        self.cool_until = max(self.cool_until, now + min(pause, retry.LONGEST_RETRY_AFTER))

    async def _wait(self, job: Job) -> Job | None:
        run = self._run
        began = time.monotonic()
        assert job.task is not None
        plan = run.history.plan(job.task, WALL.now, _age(job), crowded=lambda: run.crowded)
        steps = flow.wait(job.task, job.base or run.base, plan=plan)
        try:
            status = await drive_async(steps, run.send, WALL.now() + self._left(job))
        except AuthenticationError as refusal:
            run.stop("the service refuses the API key", refusal)
            return None
        except (RateLimitError, InsufficientCreditsError) as refusal:
            # The task is paid for and runs on; a later run asks for it again.
            run.stop("the service refuses to be polled", refusal)
            return None
        except ConnectionFailedError as lost:
            run.stop("the service cannot be reached", lost)
            return None
        except (*TASK_ENDED, APIStatusError, NoResponseError) as error:
            if isinstance(error, TaskTimeoutError) and run.is_silent(began):
                run.stop("the service cannot be reached", ConnectionFailedError(NO_POLL_ANSWERED))
                return None
            ending = error
            charged = to_micro(error.cost) if isinstance(error, TaskFailedError) else None
            failed = await run.record(lambda: run.ledger.failed(job, ending, charged))
            run.count_failure(failed, error)
            return None
        ready = await run.record(lambda: run.ledger.ready(job, status, expiry(status.url)))
        run.report(RunProgress("ready", ready))
        return ready

    def _left(self, job: Job) -> float:
        began = job.submitted or time.time()
        # A clock that was set back or forward must not end the wait, nor make it endless.
        waited = min(max(0.0, time.time() - began), self._run.options.patience)
        return max(self._run.options.last_look, self._run.options.patience - waited)


def _accepted_as(job: Job, task: Task) -> str:
    return (
        f"Job {job.id} was accepted as task {task.id}; once the ledger can be written run "
        f"`fluxwerk batch settle ... {job.id} --collect {task.id}`."
    )


def expiry(url: str | None) -> float | None:
    """Read from a signed link when it expires, in seconds since 1970, or `None` if it does not say."""
    expires = parse_qs(urlsplit(url or "").query).get("se", [""])[0]
    try:
        return datetime.strptime(expires, SIGNED_EXPIRY).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _age(job: Job) -> float | None:
    """Say how many seconds ago a job was submitted, `None` if a clock that was set makes nonsense of it."""
    age = time.time() - (job.submitted or time.time())
    return age if age >= 0 else None
