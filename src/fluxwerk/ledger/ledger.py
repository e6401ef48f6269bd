"""The ledger: one method for each transition of a job, which names the stage it starts from.

A method that finds the job elsewhere raises `ConflictError` and has written nothing, so of two processes one wins.
Intent is written before the submit leaves, and the task before anything else afterwards.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from fluxwerk.errors import ConflictError, FluxwerkError, InvalidUsageError
from fluxwerk.ledger import migrations
from fluxwerk.ledger.budget import SET_SETTING, Budget, remaining
from fluxwerk.ledger.database import Database, Row, SQLiteDatabase, Transaction
from fluxwerk.ledger.doubts import Doubts, decided, is_held
from fluxwerk.ledger.failure import WITHOUT_IMAGE, FailureKind
from fluxwerk.ledger.job import Job, Stage, read_job, to_micro
from fluxwerk.ledger.leases import Leases, doubt
from fluxwerk.ledger.transition import BOOKED, CLEARED, apply_transition
from fluxwerk.protocol.idempotency import SHARE_OF_PROMISE
from fluxwerk.types import Json, Status, Task

S = Stage
TOKEN_BYTES = 24
LINK_SECONDS = 600.0
PLANNED_JOBS = """
    select * from jobs where stage = :stage and pool = :pool
    and sheet in (select id from sheets where opened is not null) order by id limit :most
"""
JOBS_WITHOUT_WORKER = """
    select id from jobs where stage in (:submitted, :ready) and worker is null order by expires, id limit :most
"""
LEFT_OFFLINE = """
    select id, stage from jobs where stage in (:submitted, :ready, :doubtful) and worker is null and base <> :base
"""
# The key rode on the submit only where it is known when that began.
REPEATABLE = """
    select id, began from jobs where stage = :stage and base = :base and began > :since order by id
"""
REPEATED = "sent again with the same key: the server keeps it, so it is the same submit"
ADOPT = "update jobs set worker = :worker, fence = fence + 1 where id = :id returning *"
JOB_OF_TOKEN = "select * from jobs where token = :token and stage in (:submitting, :doubtful)"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Claim:
    """Jobs that may be submitted now; `capped` says that the cap held back the next one."""

    jobs: tuple[Job, ...]
    capped: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """Where an image lies, and the SHA-256 of the file there."""

    path: str
    sha256: str


class Ledger:
    """Every job of a file, with its `slots` and its `budget`; safe to share between threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.leases = Leases(database)
        self.budget = Budget(database)
        self.doubts = Doubts(database)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, clock: Callable[[], float] | None = None) -> Self:
        """Open the ledger in this file, or make it; `:memory:` keeps it nowhere.

        `clock` replaces the database's clock in tests.  Raises `InvalidUsageError` and `StorageError`.
        """
        database = SQLiteDatabase(path, clock)
        try:
            migrations.prepare(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def job(self, identity: int) -> Job:
        """Find a job by its number; raises `InvalidUsageError` if there is none."""
        return read_job(self.row(identity))

    def row(self, identity: int) -> Row:
        """Find every column of a job; raises `InvalidUsageError` if there is none."""
        with self.database.read() as transaction:
            row = transaction.one("select * from jobs where id = :id", id=identity)
        if row is None:
            raise InvalidUsageError(
                f"There is no job {identity} in this ledger; `fluxwerk batch export` lists them all."
            )
        return row

    def rows(self, *stages: Stage, chunk: int = 1000) -> Iterator[Row]:
        """Go through the jobs in these stages by their number, a chunk at a time; through all if none is named."""
        named = ", ".join(f"'{stage}'" for stage in stages or Stage)
        ask = f"select * from jobs where id > :last and stage in ({named}) order by id limit :chunk"
        last = 0
        while True:
            with self.database.read() as transaction:
                rows = transaction.all(ask, last=last, chunk=chunk)
            yield from rows
            if len(rows) < chunk:
                return
            last = rows[-1]["id"]

    @staticmethod
    def job_fields(row: Row) -> dict[str, Json]:
        """Read the request's fields of a row, with local images as their hashes."""
        fields: dict[str, Json] = json.loads(row["request"])
        return fields

    def setting(self, name: str) -> str | None:
        """Read what was agreed on for this ledger, or `None`."""
        with self.database.read() as transaction:
            row = transaction.one("select value from settings where name = :name", name=name)
        return row["value"] if row else None

    def remember(self, **settings: str) -> None:
        """Write down what holds for this ledger until something else is agreed on."""
        with self.database.write() as transaction:
            for name, value in settings.items():
                transaction.run(SET_SETTING, name=name, value=value)

    def transitions(self, identity: int) -> list[Row]:
        """List every transition of a job, oldest first."""
        with self.database.read() as transaction:
            return transaction.all("select * from moves where job = :id order by id", id=identity)

    def submitting(self, worker: str, most: int, base: str) -> Claim:
        """Move at most `most` planned jobs to submitting, as the slots and the cap allow, over all processes.

        Raises `ConflictError` if this worker's lease has run out.
        """
        with self.database.write() as transaction:
            if not _is_at_work(transaction, worker):
                raise ConflictError("The lease of this worker ran out, and other workers have its jobs now.")
            if is_held(transaction):
                return Claim(())
            left, jobs = remaining(transaction), list[Job]()
            for row in _candidates(transaction, self.leases.free(transaction), most):
                price = row["estimate"]
                if left is not None and (price is None or price > left):
                    return Claim(tuple(jobs), capped=True)
                left = None if left is None else left - price
                token = secrets.token_urlsafe(TOKEN_BYTES)
                attempt = row["attempt"] + 1
                jobs.append(
                    apply_transition(
                        transaction, row["id"], S.PLANNED, S.SUBMITTING,
                        worker=worker, token=token, attempt=attempt, base=base, began=transaction.now(),
                    )
                )  # fmt: skip
        return Claim(tuple(jobs))

    def adopt(self, worker: str, most: int) -> list[Job]:
        """Give this worker jobs that were paid for and have no worker, nearest expiry first.

        Returns no jobs if its lease ran out.
        """
        with self.database.write() as transaction:
            if not _is_at_work(transaction, worker):
                return []
            orphans = transaction.all(JOBS_WITHOUT_WORKER, submitted=S.SUBMITTED, ready=S.READY, most=most)
            rows = [transaction.one(ADOPT, worker=worker, id=row["id"]) for row in orphans]
        return [read_job(row) for row in rows if row]

    def repeating(self, worker: str, base: str, seconds: float, but: Collection[int] = ()) -> list[Job]:
        """Move jobs in doubt back to submitting, whose keys the server at `base` keeps for `seconds`; none in `but`.

        Returns no jobs if this worker's lease ran out.
        """
        with self.database.write() as transaction:
            if not _is_at_work(transaction, worker):
                return []
            rows = transaction.all(
                REPEATABLE, stage=S.DOUBTFUL, base=base, since=transaction.now() - seconds * SHARE_OF_PROMISE
            )
            jobs: list[Job] = []
            for row in rows:
                if row["id"] not in but:
                    decided(transaction, row, None)
                    jobs.append(
                        apply_transition(
                            transaction, row["id"], S.DOUBTFUL, S.SUBMITTING, worker=worker, reason=None, note=REPEATED
                        )
                    )
            return jobs

    def replan_offline(self, base: str) -> None:
        """Plan again what an offline server took with it when it ended: it charged nothing."""
        with self.database.write() as transaction:
            for row in transaction.all(
                LEFT_OFFLINE, submitted=S.SUBMITTED, ready=S.READY, doubtful=S.DOUBTFUL, base=base
            ):
                stage, note = Stage(row["stage"]), "its offline server has ended; nothing was charged"
                if stage is not S.DOUBTFUL:
                    apply_transition(transaction, row["id"], stage, S.FAILED, note=note, settled=0)
                    stage = S.FAILED
                apply_transition(transaction, row["id"], stage, S.PLANNED, note=note, **CLEARED)

    def submitted(self, job: Job, task: Task) -> Job | None:
        """Write down what was just paid for.

        If the job was taken over meanwhile the task is kept all the same, for the worker that has it, and this returns
        `None`.
        """
        with self.database.write() as transaction:
            try:
                return _accept(transaction, job, task, fence=job.fence)
            except ConflictError:
                assert job.token is not None
                _accept_callback(transaction, job.token, task)
                return None

    def withdrawn(self, job: Job, reason: str) -> Job:
        """Move a job back to planned, because its submit certainly was not taken."""
        return self._transition(job, S.PLANNED, note=reason, **CLEARED)

    def refused(self, job: Job, error: FluxwerkError) -> Job:
        """Move a job to failed, because the service or a check refused it; it cost nothing."""
        return self._fail(job, error, settled=0)

    def doubted(self, job: Job, reason: str) -> None:
        """Move a job to in doubt, because its submit left and was not answered."""
        with self.database.write() as transaction:
            doubt(transaction, job.id, job.fence, reason)

    def ready(self, job: Job, status: Status, expires: float | None = None) -> Job:
        """Note where the image lies and until when; by default its link dies ten minutes from now."""
        with self.database.write() as transaction:
            dies = transaction.now() + LINK_SECONDS if expires is None else expires
            return apply_transition(
                transaction, job.id, job.stage, S.READY, fence=job.fence, url=status.url, expires=dies,
                seed=status.seed, engine=status.engine, settled=to_micro(status.cost),
            )  # fmt: skip

    def expired(self, job: Job) -> Job:
        """Move a job from ready back to submitted, because its link has expired; its task will name a fresh one."""
        return self._transition(job, S.SUBMITTED, note="its link has died", url=None, expires=None)

    def failed(self, job: Job, error: FluxwerkError, cost: int | None = None) -> Job:
        """Move a job to failed, because its task ended without an image; `cost` in millionths, if it is known."""
        return self._fail(job, error, **({} if cost is None else {"settled": cost}))

    def saved(self, job: Job, saved: Saved) -> Job:
        """Note where the image was saved; its link is forgotten."""
        return self._transition(
            job, S.SAVED, note=saved.path, worker=None, url=None, path=saved.path, sha256=saved.sha256
        )

    def retry(self, identity: int) -> Job:
        """Try a failed job again: collect its task if it may still have an image, else plan a new submit.

        Raises `ConflictError` if it has not failed.
        """
        with self.database.write() as transaction:
            row = _require(transaction, identity, S.FAILED)
            if row["task"] is not None and row["kind"] not in WITHOUT_IMAGE:
                back: dict[str, Any] = {
                    "note": "to be collected again",
                    "kind": None,
                    "reason": None,
                    "url": None,
                    "worker": None,
                }
                now = transaction.now()
                return apply_transition(
                    transaction, identity, S.FAILED, S.SUBMITTED, submitted=now, settled=None, **back
                )
            spent = row["earlier"] + row["booked"]
            return apply_transition(
                transaction, identity, S.FAILED, S.PLANNED, note="to be tried again", earlier=spent, **CLEARED
            )

    def settle_charged(self, identity: int) -> Job:
        """Settle a job in doubt: it was charged, and its image is lost."""
        with self.database.write() as transaction:
            row = _require(transaction, identity, S.DOUBTFUL)
            decided(transaction, row, row["booked"])
            word = "settled by a person: it was charged, and there is no image"
            return apply_transition(
                transaction, identity, S.DOUBTFUL, S.FAILED,
                note=word, kind=FailureKind.IN_DOUBT, reason=word, settled=row["booked"],
            )  # fmt: skip

    def settle_resubmit(self, identity: int, note: str = "settled by a person: it was not charged") -> Job:
        """Settle a job in doubt: it may be submitted again; `note` says why."""
        with self.database.write() as transaction:
            decided(transaction, _require(transaction, identity, S.DOUBTFUL), 0)
            return apply_transition(transaction, identity, S.DOUBTFUL, S.PLANNED, note=note, **CLEARED)

    def settle_collect(self, identity: int, task: str) -> Job:
        """Settle a job in doubt: this is its task, whose image is still to be fetched."""
        with self.database.write() as transaction:
            job = read_job(_require(transaction, identity, S.DOUBTFUL))
            other = transaction.one("select id from jobs where task = :task", task=task)
            if other:
                raise InvalidUsageError(f"{task} is the task of job {other['id']} already; nothing was changed.")
            return _accept(transaction, job, _task_at(job, task), worker=None, note="settled by a person")

    def accept_callback(self, token: str, task: str) -> Job | None:
        """Accept a webhook that carries the token of a submit: this task is what became of that submit.

        Returns the job if that ended a doubt, and `None` if nothing was in doubt; it may be called any number of times.
        """
        with self.database.write() as transaction:
            return _accept_callback(transaction, token, task)

    def _transition(self, job: Job, after: Stage, **columns: Any) -> Job:
        with self.database.write() as transaction:
            return apply_transition(transaction, job.id, job.stage, after, fence=job.fence, **columns)

    def _fail(self, job: Job, error: FluxwerkError, **columns: Any) -> Job:
        kind = FailureKind.of(error)
        return self._transition(job, S.FAILED, note=f"{kind}: {error}", worker=None, url=None, kind=kind,
                          reason=str(error), **columns)  # fmt: skip


def _is_at_work(transaction: Transaction, worker: str) -> bool:
    """Whether a worker has its lease; nobody would ever take over the jobs of one that has none."""
    return transaction.one("select id from workers where id = :id", id=worker) is not None


def _candidates(transaction: Transaction, slots: Mapping[str, int], most: int) -> list[Row]:
    """Choose the first planned jobs for which there are slots, in the order of their numbers."""
    found: list[Row] = []
    for pool, free in slots.items():
        if free:
            found += transaction.all(PLANNED_JOBS, stage=S.PLANNED, pool=pool, most=min(free, most))
    return sorted(found, key=lambda row: row["id"])[:most]


def _accept(transaction: Transaction, job: Job, task: Task, **columns: Any) -> Job:
    columns.setdefault("note", f"task {task.id}")
    if job.stage is S.DOUBTFUL:
        decided(transaction, job, None)
    return apply_transition(
        transaction,
        job.id,
        job.stage,
        S.SUBMITTED,
        task=task.id,
        polling_url=task.polling_url,
        cost=to_micro(task.cost),
        submitted=transaction.now(),
        **columns,
    )


def _accept_callback(transaction: Transaction, token: str, task: Task | str) -> Job | None:
    row = transaction.one(JOB_OF_TOKEN, token=token, submitting=S.SUBMITTING, doubtful=S.DOUBTFUL)
    if row is None:
        return None
    job = read_job(row)
    named = _task_at(job, task) if isinstance(task, str) else task
    return _accept(transaction, job, named, worker=None, note=f"task {named.id}, matched by its token")


def _task_at(job: Job, task: str) -> Task:
    assert job.base is not None
    return Task(task, f"{job.base}/v1/get_result?id={quote(task, safe='')}", job.model)


def _require(transaction: Transaction, identity: int, stage: Stage) -> Row:
    ask = f"select *, {BOOKED} as booked from jobs where id = :id"
    row = transaction.one(ask, id=identity)
    if row is None:
        raise InvalidUsageError(f"There is no job {identity} in this ledger; `fluxwerk batch export` lists them all.")
    if row["stage"] != stage:
        raise ConflictError(f"Job {identity} is {row['stage']}, not {stage}; nothing was changed.")
    return row
