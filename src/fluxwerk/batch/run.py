"""What the parts of one run share: the ledger's writer, the transport, what pauses submitting, and who is informed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar

from fluxwerk.catalog.rows import Model
from fluxwerk.drive import AsyncSend
from fluxwerk.errors import FluxwerkError, InDoubtError, StorageError, TransportError
from fluxwerk.ledger.failure import FailureKind
from fluxwerk.ledger.job import Job
from fluxwerk.ledger.leases import LEASE_SECONDS
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.ledger.writer import LedgerWriter
from fluxwerk.polling.history import PollingHistory
from fluxwerk.protocol.idempotency import Promises
from fluxwerk.types import HttpRequest, Request, Response, Status

T = TypeVar("T")
LONGEST_PAUSE = 15.0
SILENT_AFTER = 60.0
SERVER_ERROR = 500


class OnDoubt(StrEnum):
    """What a run does about a submit in doubt."""

    STOP = "stop"  # submit nothing more
    ASK = "ask"  # leave it to a person or a webhook
    SETTLE = "settle"  # use the evidence that there is: the kept key, the balance
    RESUBMIT = "resubmit"  # submit it again, and perhaps pay twice


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes about its work; times in seconds.

    This process has at most `concurrency` tasks in flight, and fetches `downloads` images side by side.  After
    `max_failures` jobs have failed, or `max_doubts` submits in a row were not answered, nothing more is submitted.
    The answer to a submit counts as lost after `submit_timeout`.  A process that is silent for `lease` counts as
    dead.  A task is waited for during `patience`, and however late it is taken up again at least for `last_look`.
    After a request to stop, what is in flight has `drain` seconds to end.  `timeout` bounds the whole run; shortly
    before, nothing more is submitted.  Trouble with the disk, the storage or the service is waited out during
    `endurance`, with pauses that grow from `first_pause`.  `offline` says that the server ends with this run and
    charges nothing, so that what it forgot may be asked for again.  `delivery_hosts` are those of the client.

    `exclusive` promises that nobody else uses the account: then the balance settles doubts that are `witness_after`
    old, once it stands still for `steady`, and `rebuy` images that were charged and lost are bought anew.
    """

    concurrency: int = 64
    downloads: int = 8
    max_failures: int | None = None
    max_doubts: int = 10
    webhook: str | None = None
    webhook_secret: str | None = field(default=None, repr=False)
    lease: float = LEASE_SECONDS
    patience: float = 3600.0
    last_look: float = 60.0
    endurance: float = 900.0
    drain: float = 60.0
    timeout: float | None = None
    offline: bool = False
    first_pause: float = 0.5
    submit_timeout: float = 120.0
    on_doubt: OnDoubt = OnDoubt.SETTLE
    exclusive: bool = False
    rebuy: int = 0
    witness_after: float = 120.0
    steady: float = 2.0
    delivery_hosts: frozenset[str] = frozenset()


class EndReason(StrEnum):
    """Why a run ended."""

    FINISHED = "finished"  # no job is left that could go on
    CAPPED = "capped"  # the next job would cross the cap
    STOPPED = "stopped"  # a signal or `stop` asked for it
    TIMED_OUT = "timed_out"  # `timeout` is over
    FAILURES = "failures"  # more jobs failed than `max_failures`
    ERROR = "error"  # what stopped it is raised


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended: the reason for programs, and `text` for people, empty if nothing is left to do."""

    reason: EndReason = EndReason.FINISHED
    text: str = ""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """One thing that happened to a job or to the run.

    `kind` is a stage of the job, or one of held, released, settled, unsettled, stopping; `text` says more, for people;
    `failure` says why a job failed, for programs.
    """

    kind: str
    job: Job | None = None
    text: str = ""
    saved: Saved | None = None
    failure: FailureKind | None = None


OnProgress: TypeAlias = Callable[[RunProgress], None]


class Prepare(Protocol):
    """Turns a job into the model and the request to send; raises `InvalidUsageError` if that is no longer possible."""

    def __call__(self, job: Job) -> tuple[Model, Request]:
        """Read what has to be read; blocking."""
        ...


class ImageSaver(Protocol):
    """Stores images, each whole or not at all; its methods may block."""

    def check(self) -> None:
        """Prove that images can be stored; raises `InvalidUsageError` or `StorageError`."""
        ...

    def check_job(self, job: Job) -> None:
        """Refuse a job whose image could never get its name; raises `InvalidUsageError`."""
        ...

    def save(self, job: Job, status: Status, data: bytes) -> Saved:
        """Write an image and return where it lies; raises `StorageError`, after which it may be tried again."""
        ...


@dataclass(slots=True)
class Hold:
    """A reason not to submit: its start on the monotonic clock in seconds, and its text."""

    since: float
    text: str


@dataclass(slots=True)
class Run:
    """One run of one process."""

    ledger: Ledger
    writer: LedgerWriter
    transport: AsyncSend
    base: str
    prepare: Prepare
    saver: ImageSaver
    options: RunOptions
    on_progress: OnProgress
    history: PollingHistory
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    stop_requested: asyncio.Event = field(default_factory=asyncio.Event)
    holds: dict[str, Hold] = field(default_factory=dict[str, Hold])
    end: RunEnd | None = None
    error: Exception | None = None
    answered: float = -math.inf
    failures: int = 0
    doubts_in_a_row: int = 0
    # Which servers take a repeated submit for the same one, and the jobs in doubt that were sent again there.
    promises: Promises = field(default_factory=Promises)
    repeated: set[int] = field(default_factory=set[int])
    # Whether jobs wait for a slot, as far as the last heartbeat knew.
    crowded: bool = True

    async def send(self, request: HttpRequest, budget: float | None) -> Response:
        """Send a request, and note that the service answers."""
        response = await self.transport(request, budget)
        if request.keyed:
            self.promises.note(request, response)
        if response.status < SERVER_ERROR:
            self.answered = time.monotonic()
        return response

    def is_silent(self, since: float) -> bool:
        """Whether the service has answered neither since then nor within the last minute."""
        return self.answered < max(since, time.monotonic() - SILENT_AFTER)

    def report(self, progress: RunProgress) -> None:
        """Call `on_progress`; if it raises, the run ends in good order, since what is in flight is paid for."""
        try:
            self.on_progress(progress)
        except Exception as error:  # noqa: BLE001  (it is raised when the run has ended)
            self.stop("the callback on_progress failed", error)

    def hold(self, what: str, error: FluxwerkError) -> None:
        """Stop submitting until `release`; after `endurance` the run gives up."""
        if what not in self.holds:
            self.holds[what] = Hold(time.monotonic(), str(error))
            self.report(RunProgress("held", text=f"Submitting is paused. {error}"))
        if isinstance(error, TransportError) and error.permanent:
            self.stop("the service cannot be reached", error)
        elif time.monotonic() - self.holds[what].since >= self.options.endurance:
            self.stop(f"the {what} did not recover in {self.options.endurance:g} s", error)

    def release(self, what: str) -> None:
        """Submit again."""
        if self.holds.pop(what, None):
            self.report(RunProgress("released", text=f"the {what} works again"))
            self.wake.set()

    def stop(self, text: str, error: Exception | None = None, reason: EndReason = EndReason.ERROR) -> None:
        """Submit nothing more; what is in flight is still collected."""
        if self.end is None:
            self.end, self.error = RunEnd(reason, text), error
            self.report(RunProgress("stopping", text=text))
        self.error = self.error or error
        self.wake.set()

    async def record(self, act: Callable[[], T]) -> T:
        """Write to the ledger, however long its disk is full: it may be about something that was paid for.

        Raises `StorageError` only once the run has given up.
        """
        pause = self.options.first_pause
        while True:
            try:
                result = await self.writer.write(act)
            except StorageError as error:
                self.hold("ledger", error)
                if self.error:
                    raise
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            else:
                self.release("ledger")
                return result

    def count_doubt(self, job: Job, reason: str) -> None:
        """Report a job in doubt, and stop when a service that answers nothing would put all jobs in doubt."""
        self.doubts_in_a_row += 1
        self.report(RunProgress("in doubt", job, reason))
        if self.options.on_doubt is OnDoubt.STOP:
            self.stop("a submit is in doubt", InDoubtError(reason))
        elif self.doubts_in_a_row >= self.options.max_doubts:
            self.stop(f"{self.doubts_in_a_row} submits in a row were not answered", InDoubtError(reason))

    def count_failure(self, job: Job, error: FluxwerkError) -> None:
        """Report a failed job, and stop when there were too many."""
        self.failures += 1
        self.report(RunProgress("failed", job, str(error), failure=FailureKind.of(error)))
        most = self.options.max_failures
        if most is not None and self.failures > most:
            self.stop(f"{self.failures} jobs have failed, and at most {most} may", reason=EndReason.FAILURES)
