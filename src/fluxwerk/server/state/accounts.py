"""The server's accounts, with their credits, and every job with its stage, slot and charge."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import heappop, heappush
from typing import Protocol

from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Order
from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.state.outgoing import OutgoingWebhook
from fluxwerk.types import Json, Task

LONGEST_KEY = 512
PLENTY = Decimal(1_000_000)
NOTHING = Decimal(0)
# How long an image outlives its task's end, in seconds: six times as long as a link to it lives.
KEEP = 3600.0
# The number of accounts that are remembered where any key opens one; accounts with tasks always stay.
REMEMBERED_ACCOUNTS = 10_000

# What the account of a key's SHA-256 was given in credits, or `None` if there is no such account.
Grants = Callable[[str], Decimal | None]


@dataclass(slots=True)
class Account:
    """Who pays: `granted` credits less those `spent`; the key itself is never kept, only its SHA-256.

    `kept` counts its tasks that are not forgotten, `reading` its submits that wait for their images, by pool.
    """

    digest: str = field(repr=False)
    granted: Decimal
    spent: Decimal = NOTHING
    in_flight: dict[str, TaskRecord] = field(default_factory=dict["str", "TaskRecord"], repr=False)
    kept: int = 0
    reading: Counter[str] = field(default_factory=Counter[str], repr=False)

    @property
    def shown(self) -> str:
        """How the log names it: the first digits of the key's SHA-256."""
        return f"sha256:{self.digest[:8]}"

    @property
    def credits(self) -> Decimal:
        """What is left."""
        return self.granted - self.spent


@dataclass(slots=True)
class TaskRecord:
    """One accepted task: what was ordered and charged, and how it stands; times are seconds on the server's clock.

    `began` is when the engine took it up, `settled` what it costs in the end, `once` the submit's idempotency key with
    the SHA-256 of its body.  `inputs` names the images that came with it; it is `bereft` when it has to be rendered and
    they are lost.
    """

    task: Task
    account: Account
    model: Model
    order: Order
    accepted: float
    folder: str = field(default="", repr=False)
    ready_at: float | None = None
    word: str = "Pending"
    details: Json = None
    image: bytes | None = field(default=None, repr=False)
    progress: float | None = None
    preview: bytes | None = field(default=None, repr=False)
    delivered: bool = False
    began: float | None = None
    settled: Decimal | None = None
    webhook: OutgoingWebhook | None = field(default=None, repr=False)
    idempotency: tuple[str, str] | None = field(default=None, repr=False)
    inputs: tuple[str, ...] = ()
    inputs_lost: bool = False

    def has_ended(self, now: float) -> bool:
        """Whether its ending may be shown by now; until then it holds its slot."""
        return self.ready_at is not None and now >= self.ready_at


class Store(Protocol):
    """Where jobs and balances outlive the process."""

    def save(self, job: TaskRecord) -> None:
        """Write a job and its account's balance, both or neither."""
        ...

    def forget(self, job: TaskRecord) -> None:
        """Remove a job and its files."""
        ...

    def image(self, job: TaskRecord) -> bytes | None:
        """Read the image of a job."""
        ...

    def spent(self, digest: str) -> Decimal:
        """Say what an account has spent so far."""
        ...

    def load(self, account: Callable[[str], Account]) -> list[TaskRecord]:
        """Read every job that was saved, in the order of their acceptance."""
        ...

    def probe(self) -> None:
        """Write something, to prove that the storage takes it; raises `StorageError`."""
        ...


class MemoryStore:
    """The store that keeps nothing beyond the process."""

    def save(self, _: TaskRecord) -> None:
        """Keep the job where it is."""

    def forget(self, _: TaskRecord) -> None:
        """Let it go."""

    def image(self, job: TaskRecord) -> bytes | None:
        """Take it from the job itself."""
        return job.image

    def spent(self, _: str) -> Decimal:
        """Know of no past."""
        return NOTHING

    def load(self, _: Callable[[str], Account]) -> list[TaskRecord]:
        """Know of no past."""
        return []

    def probe(self) -> None:
        """Memory always takes what it is given."""


class Accounts:
    """Every account and every job; knows nothing of HTTP.

    Accounts are those that `grants` knows, or those of `keys` with `credit` each; without either any well-formed key
    opens an account of its own, and the `remembered` that were used last are known.  Images are kept for `keep` seconds
    after their task's end.
    """

    def __init__(
        self,
        keys: Iterable[str] = (),
        credit: Decimal = PLENTY,
        keep: float = KEEP,
        *,
        grants: Grants | None = None,
        store: Store | None = None,
        remembered: int = REMEMBERED_ACCOUNTS,
    ) -> None:
        digests = {digest_of(key) for key in keys}
        self.keep = keep
        self._grants = grants or _among(digests, credit)
        self._remembered: int | None = None
        self._accounts: dict[str, Account] = {}
        self._endings: list[tuple[float, str]] = []
        self._store = store or MemoryStore()
        self.jobs: dict[str, TaskRecord] = {}
        self.by_folder: dict[str, TaskRecord] = {}
        self.by_idempotency: dict[tuple[str, str], TaskRecord] = {}
        for job in self._store.load(self._account):
            self._enter(job)
            if job.ready_at is not None:
                self._end(job, job.ready_at)
        # Not before every job is there, and not where the operator's own list bounds the accounts: what they have
        # spent is never forgotten.
        self._remembered = None if grants or digests else remembered

    def account(self, key: str) -> Account | None:
        """Find whose key this is, and open an account that is granted but was not used before."""
        return self.account_of(digest_of(key))

    def account_of(self, digest: str) -> Account | None:
        """Find the account of a key's SHA-256, and open it if it is granted but was not used before."""
        granted = self._grants(digest)
        if granted is None:
            return None
        account = self._account(digest)
        account.granted = granted
        return account

    def known(self, key: str) -> Account | None:
        """Find whose key this is among the accounts that are open."""
        return self._accounts.get(digest_of(key))

    def has_slot(self, account: Account, model: Model, now: float) -> bool:
        """Whether another task of this model may be in flight."""
        return self.free(account, model, now) > 0

    def free(self, account: Account, model: Model, now: float) -> int:
        """Count the slots of a model that neither a task nor a submit that is being read holds."""
        held = len(self.in_flight(account, model.pool, now)) + account.reading[model.pool]
        return max(0, model.slots - held)

    @contextmanager
    def hold(self, account: Account, model: Model) -> Generator[None]:
        """Hold a slot for as long as a submit is being read, so that slow ones cannot add up."""
        account.reading[model.pool] += 1
        try:
            yield
        finally:
            account.reading[model.pool] -= 1

    def in_flight(self, account: Account, pool: str, now: float) -> list[TaskRecord]:
        """List the account's tasks that hold a slot of a pool; those that ended give theirs back here."""
        account.in_flight = {key: job for key, job in account.in_flight.items() if not job.has_ended(now)}
        return [job for job in account.in_flight.values() if job.model.pool == pool]

    def accept(self, job: TaskRecord) -> None:
        """Book a job: its slot and its cost."""
        self.forget(job.accepted)
        job.account.spent += job.task.cost or NOTHING
        try:
            self._store.save(job)
        except Exception:
            job.account.spent -= job.task.cost or NOTHING
            raise
        self._enter(job)

    def finish(self, job: TaskRecord, image: bytes, ready_at: float) -> None:
        """Keep the image; it is shown from `ready_at` on."""
        job.image = image
        job.word, job.settled = "Ready", job.task.cost
        self._settle(job, ready_at)

    def fail(self, job: TaskRecord, details: Json, now: float) -> None:
        """Note that a job ended without an image, and return its credits: the fault was ours."""
        self.end(job, Ending("Error", details), now)

    def end(self, job: TaskRecord, ending: Ending, now: float) -> None:
        """Note how a job ends without an image, and return its credits unless they stay booked."""
        if not ending.word:
            # It never ends, so it is forgotten as if it had ended when it began; until then it holds its slot.
            heappush(self._endings, (now + self.keep, job.task.id))
            return
        cost = job.task.cost or NOTHING
        booked = cost if job.settled is None else job.settled
        job.word, job.details, job.image = ending.word, ending.details, None
        job.settled = cost if ending.paid else NOTHING
        job.account.spent -= booked - job.settled
        self._settle(job, now)

    def note(self, job: TaskRecord) -> None:
        """Write down what changed about a job that had ended, unless it is forgotten by now."""
        if job.task.id in self.jobs:
            self._store.save(job)

    def probe(self) -> None:
        """Prove that the storage can be written; raises `StorageError`."""
        self._store.probe()

    def image(self, job: TaskRecord) -> bytes | None:
        """Return the image of a job, if it has one."""
        return job.image or self._store.image(job)

    def waiting(self) -> list[TaskRecord]:
        """List the tasks without an end, in the order of their acceptance."""
        return [job for job in self.jobs.values() if job.ready_at is None]

    def is_quiet(self, now: float, linger: float) -> bool:
        """Whether nothing runs, and nothing that became ready within the last `linger` seconds waits for collection."""
        return all(
            job.has_ended(now) and (job.delivered or job.word != "Ready" or now - (job.ready_at or now) > linger)
            for job in self.jobs.values()
        )

    def forget(self, now: float) -> None:
        """Drop the jobs whose images have been kept long enough."""
        while self._endings and self._endings[0][0] <= now:
            job = self.jobs.get(heappop(self._endings)[1])
            if job is not None:
                self.discard(job)

    def discard(self, job: TaskRecord) -> None:
        """Drop one job with its image and its inputs."""
        del self.jobs[job.task.id], self.by_folder[job.folder]
        job.account.in_flight.pop(job.task.id, None)
        job.account.kept -= 1
        if job.idempotency:
            self.by_idempotency.pop((job.account.digest, job.idempotency[0]), None)
        self._store.forget(job)

    def _enter(self, job: TaskRecord) -> None:
        self.jobs[job.task.id] = self.by_folder[job.folder] = job
        job.account.in_flight[job.task.id] = job
        job.account.kept += 1
        if job.idempotency:
            self.by_idempotency[job.account.digest, job.idempotency[0]] = job

    def _settle(self, job: TaskRecord, ready_at: float) -> None:
        self._end(job, ready_at)
        self._store.save(job)

    def _end(self, job: TaskRecord, ready_at: float) -> None:
        job.ready_at = ready_at
        heappush(self._endings, (ready_at + self.keep, job.task.id))

    def _account(self, digest: str) -> Account:
        account = self._accounts.pop(digest, None)
        if account is None:
            self._make_room()
            account = Account(digest, self._grants(digest) or NOTHING, self._store.spent(digest))
        # The one that was used last stands last.
        self._accounts[digest] = account
        return account

    def _make_room(self) -> None:
        if self._remembered is None or len(self._accounts) < self._remembered:
            return
        idle = (digest for digest, one in self._accounts.items() if not one.kept and not one.reading.total())
        found = next(idle, None)
        if found is not None:
            del self._accounts[found]


def is_well_formed(key: str) -> bool:
    """Whether this could be a key at all; no prefix is asked for, since older keys are UUIDs."""
    return 0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key


def digest_of(key: str) -> str:
    """Return what is kept of a key: with 256 bits of chance in it a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


def _among(digests: set[str], credit: Decimal) -> Grants:
    return lambda digest: credit if not digests or digest in digests else None
