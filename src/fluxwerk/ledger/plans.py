"""From checked requests to planned jobs: rows are written a chunk at a time, and opened all at once.

Until its plan is opened no job is submitted, so a manifest with a fault in its last line has bought nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from fluxwerk.errors import ConflictError
from fluxwerk.ledger.database import Database, Transaction
from fluxwerk.ledger.job import Stage, credits_of, to_micro
from fluxwerk.ledger.transition import ADD_TO_TALLY

CHUNK = 2000
# SQLite takes 32,766 values in one statement, PostgreSQL 65,535.
VALUES_AT_ONCE = 500
# Seconds after which a plan that no longer grows was left behind by a process that died.
ABANDONED_SECONDS = 60.0
# When a plan was last touched that is being deleted.
GONE = -1.0
INSERT_JOB = """
    insert into jobs (sheet, line, item, model, pool, request, request_hash, output, tag, estimate,
                      stage, moved, fence, attempt, earlier)
    values (:sheet, :line, :item, :model, :pool, :request, :request_hash, :output, :tag, :estimate,
            'planned', :moved, 0, 0, 0)
"""
SET_POOL = (
    "insert into pools (name, slots) values (:name, :slots) on conflict (name) do update set slots = excluded.slots"
)
INSERT_SHEET = "insert into sheets (name, sha256, touched) values (:name, :sha256, :now) returning id"
OPENED_SHEET = "select id from sheets where sha256 = :sha256 and opened is not null"
SHEET_SUMS = """
    select pool, count(*) as jobs, coalesce(sum(estimate), 0) as booked
    from jobs where sheet = :sheet group by pool
"""
SHEET_BILLS = """
    select model, count(*) as jobs, sum(estimate) as credits, sum(case when estimate is null then 1 else 0 end) as open
    from jobs where sheet = :sheet group by model order by model
"""

# Raises what speaks against opening a plan.
Check = Callable[[Transaction], None]


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One image to plan: `request` is its JSON, `hash` that of the canonical request, `estimate` in credits."""

    line: int
    item: int
    model: str
    pool: str
    request: str = field(repr=False)
    hash: str
    estimate: Decimal | None
    output: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """What the jobs of one model should cost: `unpriced` of them have no public price."""

    model: str
    jobs: int
    credits: Decimal
    unpriced: int = 0


class PlanWriter:
    """One manifest on its way into the ledger."""

    def __init__(self, database: Database, name: str, sha256: str) -> None:
        self._database = database
        self._sha256 = sha256
        with database.write() as transaction:
            row = transaction.one(INSERT_SHEET, name=name, sha256=sha256, now=transaction.now())
        assert row is not None
        self.id = int(row["id"])

    def add(self, jobs: Sequence[PlannedJob], slots: Mapping[str, int]) -> None:
        """Write a chunk of jobs, not to be submitted yet; `slots` holds how many tasks each pool may have in flight.

        Raises `ConflictError` if the plan was deleted as abandoned, or if another process writes an image of that name.
        """
        with self._database.write() as transaction:
            _require(transaction, self.id)
            transaction.run_many(SET_POOL, [{"name": pool, "slots": count} for pool, count in slots.items()])
            moved = transaction.now()
            transaction.run_many(INSERT_JOB, [_values(self.id, job, moved) for job in jobs])
            transaction.run("update sheets set touched = :now where id = :id", now=moved, id=self.id)

    def open(self, check: Check = lambda _: None) -> bool:
        """Let the jobs be worked on; false if another process has opened the same manifest meanwhile.

        What `check` raises in the same transaction leaves the plan closed.
        """
        with self._database.write() as transaction:
            check(transaction)
            if transaction.one(OPENED_SHEET, sha256=self._sha256):
                return False
            _require(transaction, self.id)
            for row in transaction.all(SHEET_SUMS, sheet=self.id):
                counts = {"jobs": row["jobs"], "booked": row["booked"], "earlier": 0}
                transaction.run(ADD_TO_TALLY, pool=row["pool"], stage=Stage.PLANNED, **counts)
            transaction.run("update sheets set opened = :now where id = :id", now=transaction.now(), id=self.id)
        return True

    def discard(self) -> None:
        """Take everything back that was not opened."""
        discard(self._database, self.id)

    def bills(self) -> list[Bill]:
        """Add up what it should cost, by model."""
        with self._database.read() as transaction:
            rows = transaction.all(SHEET_BILLS, sheet=self.id)
        return [Bill(row["model"], row["jobs"], credits_of(row["credits"] or 0), row["open"]) for row in rows]


def is_planned(database: Database, sha256: str) -> bool:
    """Whether a manifest of this content was planned to its end."""
    with database.read() as transaction:
        return transaction.one(OPENED_SHEET, sha256=sha256) is not None


def sweep(database: Database) -> None:
    """Take back what a process left behind that died while it planned."""
    ask = "select id from sheets where opened is null and touched < :since"
    with database.read() as transaction:
        left = [row["id"] for row in transaction.all(ask, since=transaction.now() - ABANDONED_SECONDS)]
    for plan in left:
        discard(database, plan)


def discard(database: Database, plan: int) -> None:
    """Delete a plan that was never opened, a chunk of jobs at a time; one that was opened is left alone."""
    # Marked first: a plan that is about to lose its jobs must not be opened.
    with database.write() as transaction:
        transaction.run("update sheets set touched = :gone where id = :id and opened is null", gone=GONE, id=plan)
    chunk = "delete from jobs where id in (select id from jobs where sheet = :sheet order by id desc limit :most)"
    while True:
        with database.write() as transaction:
            if not transaction.one("select id from sheets where id = :sheet and opened is null", sheet=plan):
                return
            if transaction.run(chunk, sheet=plan, most=CHUNK) < CHUNK:
                transaction.run("delete from sheets where id = :sheet", sheet=plan)
                return


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was asked for before: in this plan (`own`), or in another."""

    job: int
    line: int
    plan: str
    own: bool


def known(database: Database, column: str, values: Iterable[str], plan: int) -> dict[str, Place]:
    """Find the first job that has one of these values as `request_hash` or `output`, in any plan.

    Left out is what another process writes of the same manifest at this moment: only one of them opens it.
    """
    assert column in ("request_hash", "output")
    found: dict[str, Place] = {}
    with database.read() as transaction:
        for chunk in _chunks(list(values)):
            names = {f"v{n}": value for n, value in enumerate(chunk)}
            marks = ", ".join(f":{name}" for name in names)
            ask = (
                f"select {column} as value, jobs.id as id, line, sheets.name as sheet, sheets.id as number from jobs "
                f"join sheets on sheets.id = jobs.sheet where {column} in ({marks}) and (sheets.opened is not null "
                "or sheets.id = :own or sheets.sha256 <> (select sha256 from sheets where id = :own)) "
                "order by jobs.id desc"
            )
            for row in transaction.all(ask, own=plan, **names):
                found[row["value"]] = Place(row["id"], row["line"], row["sheet"], row["number"] == plan)
    return found


def _require(transaction: Transaction, plan: int) -> None:
    if transaction.one("select id from sheets where id = :id and touched > :gone", id=plan, gone=GONE) is None:
        raise ConflictError("Another process took this plan for abandoned and deleted it; plan the manifest again.")


def _values(plan: int, job: PlannedJob, moved: float) -> dict[str, object]:
    return {
        "sheet": plan,
        "line": job.line,
        "item": job.item,
        "model": job.model,
        "pool": job.pool,
        "request": job.request,
        "request_hash": job.hash,
        "output": job.output,
        "tag": job.tag,
        "estimate": to_micro(job.estimate),
        "moved": moved,
    }


def _chunks(values: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), VALUES_AT_ONCE):
        yield values[start : start + VALUES_AT_ONCE]
