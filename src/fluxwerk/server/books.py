"""The server's books: accounts with their credits, and every job with its stage, slot and charge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import heappop, heappush

from fluxwerk.catalog import Model
from fluxwerk.engines import Order
from fluxwerk.exchange import Json, Task

LONGEST_KEY = 512
PLENTY = Decimal(1_000_000)
# How long an image outlives its task's end, in seconds: six times as long as a link to it lives.
KEEP = 3600.0


@dataclass(slots=True)
class Account:
    """Who pays: `credits` is what is left; the key itself is never kept, only its SHA-256."""

    digest: str = field(repr=False)
    credits: Decimal
    in_flight: dict[str, Job] = field(default_factory=dict["str", "Job"], repr=False)


@dataclass(slots=True)
class Job:
    """One accepted task: what was ordered and charged, and how it stands; times are seconds on the server's clock."""

    task: Task
    account: Account
    model: Model
    order: Order
    accepted: float
    folder: str = field(default="", repr=False)
    ready_at: float | None = None
    word: str = "Pending"
    details: Json = None
    picture: bytes | None = field(default=None, repr=False)
    progress: float | None = None
    preview: bytes | None = field(default=None, repr=False)
    delivered: bool = False

    def has_ended(self, now: float) -> bool:
        """Whether its ending may be shown by now; until then it holds its slot."""
        return self.ready_at is not None and now >= self.ready_at


class Books:
    """Every account and every job; knows nothing of HTTP.

    Without `keys` any well-formed key opens an account of its own.  Each starts with `credit` credits.
    """

    def __init__(self, keys: Iterable[str] = (), credit: Decimal = PLENTY, keep: float = KEEP) -> None:
        self._credit = credit
        self._keep = keep
        self._accounts = {_digest(key): Account(_digest(key), credit) for key in keys}
        self._open = not self._accounts
        self._endings: list[tuple[float, str]] = []
        self.jobs: dict[str, Job] = {}
        self.by_folder: dict[str, Job] = {}

    def account(self, key: str) -> Account | None:
        """Find whose key this is."""
        digest = _digest(key)
        if self._open and digest not in self._accounts:
            self._accounts[digest] = Account(digest, self._credit)
        return self._accounts.get(digest)

    def has_slot(self, account: Account, model: Model, now: float) -> bool:
        """Whether another task of this model may be in flight; those that ended give their slots back here."""
        account.in_flight = {key: job for key, job in account.in_flight.items() if not job.has_ended(now)}
        busy = sum(job.model.pool == model.pool for job in account.in_flight.values())
        return busy < model.slots

    def accept(self, job: Job) -> None:
        """Book a job: its slot and its cost."""
        self.forget(job.accepted)
        self.jobs[job.task.id] = self.by_folder[job.folder] = job
        job.account.in_flight[job.task.id] = job
        job.account.credits -= job.task.cost or Decimal(0)

    def finish(self, job: Job, picture: bytes, ready_at: float) -> None:
        """Keep the image; it is shown from `ready_at` on."""
        job.picture = picture
        self._end(job, "Ready", ready_at)

    def fail(self, job: Job, details: Json, now: float) -> None:
        """Note that a job ended without an image, and return its credits: the fault was ours."""
        job.details = details
        job.account.credits += job.task.cost or Decimal(0)
        self._end(job, "Error", now)

    def is_quiet(self, now: float, linger: float) -> bool:
        """Whether nothing runs, and nothing that became ready within the last `linger` seconds waits for collection."""
        return all(
            job.has_ended(now) and (job.delivered or job.word != "Ready" or now - (job.ready_at or now) > linger)
            for job in self.jobs.values()
        )

    def forget(self, now: float) -> None:
        """Drop the jobs whose images have been kept long enough."""
        while self._endings and self._endings[0][0] <= now:
            job = self.jobs.pop(heappop(self._endings)[1])
            del self.by_folder[job.folder]

    def _end(self, job: Job, word: str, ready_at: float) -> None:
        job.word, job.ready_at = word, ready_at
        heappush(self._endings, (ready_at + self._keep, job.task.id))


def is_well_formed(key: str) -> bool:
    """Whether this could be a key at all; no prefix is asked for, since older keys are UUIDs."""
    return 0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
