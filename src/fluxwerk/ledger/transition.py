"""How a job goes from one stage to the next: the guard, the sums and the history, in the transaction of the caller."""

from __future__ import annotations

from typing import Any

from fluxwerk.errors import ConflictError
from fluxwerk.ledger.database import Row, Transaction
from fluxwerk.ledger.job import TRANSITIONS, Job, Stage, read_job

BOOKED = "coalesce(settled, cost, estimate, 0)"
# What a job forgets when it is planned again.
CLEARED = {
    "worker": None, "token": None, "base": None, "submitted": None, "task": None, "polling_url": None, "cost": None,
    "settled": None, "url": None, "expires": None, "seed": None, "engine": None, "kind": None, "reason": None,
    "began": None,
}  # fmt: skip
JOB_TO_MOVE = f"select pool, fence, worker, earlier, {BOOKED} as booked from jobs where id = :id and stage = :before"
INSERT_TRANSITION = """
    insert into moves (job, at, before, after, worker, note) values (:job, :at, :before, :after, :worker, :note)
"""
ADD_TO_TALLY = """
    insert into tally (pool, stage, jobs, booked, earlier) values (:pool, :stage, :jobs, :booked, :earlier)
    on conflict (pool, stage) do update set
        jobs = tally.jobs + excluded.jobs,
        booked = tally.booked + excluded.booked,
        earlier = tally.earlier + excluded.earlier
"""


def apply_transition(
    transaction: Transaction,
    identity: int,
    before: Stage,
    after: Stage,
    *,
    fence: int | None = None,
    note: str | None = None,
    **columns: Any,
) -> Job:
    """Write one legal transition with its new column values and return the job; `ConflictError` writes nothing.

    With a `fence` only the worker that holds it may move the job.  `note` is for the job's history.
    """
    assert after in TRANSITIONS[before], f"{before} may not become {after}"
    found = transaction.one(JOB_TO_MOVE, id=identity, before=before)
    if found is None or fence not in (None, found["fence"]):
        raise ConflictError(f"Job {identity} is no longer {before}, or another worker has it now.")
    names = "".join(f", {name} = :{name}" for name in columns)
    moved = transaction.one(
        f"update jobs set stage = :after, moved = :now, fence = fence + 1{names} "
        f"where id = :id and stage = :before and fence = :held returning *, {BOOKED} as booked",
        id=identity,
        before=before,
        after=after,
        now=transaction.now(),
        held=found["fence"],
        **columns,
    )
    assert moved is not None
    _count(transaction, before, found, -1)
    _count(transaction, after, moved, 1)
    transaction.run(
        INSERT_TRANSITION,
        job=identity,
        at=transaction.now(),
        before=before,
        after=after,
        worker=columns.get("worker") or found["worker"],
        note=note,
    )
    return read_job(moved)


def _count(transaction: Transaction, stage: Stage, row: Row, sign: int) -> None:
    transaction.run(
        ADD_TO_TALLY,
        pool=row["pool"],
        stage=stage,
        jobs=sign,
        booked=sign * row["booked"],
        earlier=sign * row["earlier"],
    )
