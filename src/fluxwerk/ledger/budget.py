"""What the work has cost, what it may still cost, and where the cap is: sums in credits, exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from fluxwerk.ledger.database import Database, Row, Transaction
from fluxwerk.ledger.job import UNFINISHED, Stage, credits_of, to_credits, to_micro
from fluxwerk.ledger.transition import BOOKED

DAY = 86400
COST_GROUPS = {"day": f"cast(moved / {DAY} as integer)", "model": "model", "tag": "tag", "stage": "stage"}
SET_SETTING = """
    insert into settings (name, value) values (:name, :value)
    on conflict (name) do update set value = excluded.value
"""


@dataclass(frozen=True, slots=True)
class Sums:
    """The jobs of each stage and their money, in credits.

    `spent` is known to be charged, `reserved` is under way, `doubtful` may have been charged and counts as if it were,
    `planned` is what the rest should cost.
    """

    jobs: dict[Stage, int] = field(default_factory=dict[Stage, int])
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)
    doubtful: Decimal = Decimal(0)
    planned: Decimal = Decimal(0)
    cap: Decimal | None = None

    @property
    def committed(self) -> Decimal:
        """What counts against the cap."""
        return self.spent + self.reserved + self.doubtful

    def count(self, *stages: Stage) -> int:
        """How many jobs are in these stages; in all of them if none is named."""
        return sum(self.jobs.get(stage, 0) for stage in stages or Stage)


@dataclass(frozen=True, slots=True)
class Reading:
    """The account's balance at a moment, and what the ledger had committed by then; in credits."""

    at: float
    balance: Decimal
    committed: Decimal


class Budget:
    """The money of one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sums(self) -> Sums:
        """Add everything up; takes the same time for a million jobs as for one."""
        with self._database.read() as transaction:
            return _sums(transaction)

    def set_cap(self, cap: Decimal | None) -> None:
        """Set what all jobs of this ledger may cost together, for every process at once; `None` lifts it."""
        with self._database.write() as transaction:
            if cap is None:
                transaction.run("delete from settings where name = 'cap'")
            else:
                transaction.run(SET_SETTING, name="cap", value=str(to_micro(cap)))

    def unpriced(self) -> list[tuple[str, int]]:
        """Name the models of planned jobs whose price is not public, with how many jobs each."""
        ask = "select model, count(*) as jobs from jobs where stage = :stage and estimate is null group by model"
        with self._database.read() as transaction:
            return [(row["model"], row["jobs"]) for row in transaction.all(ask, stage=Stage.PLANNED)]

    def note_balance(self, balance: Decimal) -> None:
        """ImageSaver what the service says is left, beside what was committed at that moment."""
        with self._database.write() as transaction:
            transaction.run(
                "insert into readings (at, balance, spent) values (:at, :balance, :spent)",
                at=transaction.now(),
                balance=to_micro(balance),
                spent=committed(transaction),
            )

    def readings(self) -> list[Reading]:
        """List the balances that were noted, oldest first."""
        with self._database.read() as transaction:
            rows = transaction.all("select at, balance, spent from readings order by at")
        return [Reading(row["at"], credits_of(row["balance"]), credits_of(row["spent"])) for row in rows]

    def costs(self, by: str) -> Iterator[tuple[str | int | None, int, Decimal, Decimal]]:
        """Group what left `planned` by day (since 1970), model, tag or stage: key, jobs, credits, of these in doubt."""
        group = COST_GROUPS[by]
        ask = (
            f"select {group} as label, count(*) as jobs, sum({BOOKED} + earlier) as credits, "
            f"sum(case when stage = :doubtful then {BOOKED} else 0 end) as doubtful "
            f"from jobs where stage <> :planned group by {group} order by {group}"
        )
        with self._database.read() as transaction:
            rows = transaction.all(ask, doubtful=Stage.DOUBTFUL, planned=Stage.PLANNED)
        for row in rows:
            yield row["label"], row["jobs"], credits_of(row["credits"]), credits_of(row["doubtful"])


def remaining(transaction: Transaction) -> int | None:
    """How many millionths of a credit may still be committed, or `None` without a cap."""
    row = transaction.one("select value from settings where name = 'cap'")
    return None if row is None else int(row["value"]) - committed(transaction)


def committed(transaction: Transaction) -> int:
    """Add up in millionths what counts against the cap: all that left planned, and earlier attempts."""
    ask = "select coalesce(sum(earlier + case when stage = :planned then 0 else booked end), 0) as total from tally"
    row = transaction.one(ask, planned=Stage.PLANNED)
    return int(row["total"]) if row else 0


def committed_since(transaction: Transaction, moment: float) -> Decimal:
    """Add up in credits what was last moved since then, with what is planned, over all plans that were opened."""
    ask = (
        f"select coalesce(sum({BOOKED} + earlier), 0) as total from jobs "
        "where moved >= :moment and sheet in (select id from sheets where opened is not null)"
    )
    row = transaction.one(ask, moment=moment)
    return credits_of(row["total"] if row else 0)


def _sums(transaction: Transaction) -> Sums:
    rows = transaction.all(
        "select stage, sum(jobs) as jobs, sum(booked) as booked, sum(earlier) as earlier from tally group by stage"
    )
    cap = transaction.one("select value from settings where name = 'cap'")
    return Sums(
        jobs={Stage(row["stage"]): row["jobs"] for row in rows if row["jobs"]},
        spent=_total(rows, Stage.SAVED, Stage.FAILED) + credits_of(sum(row["earlier"] for row in rows)),
        reserved=_total(rows, *UNFINISHED),
        doubtful=_total(rows, Stage.DOUBTFUL),
        planned=_total(rows, Stage.PLANNED),
        cap=to_credits(int(cap["value"])) if cap else None,
    )


def _total(rows: list[Row], *stages: Stage) -> Decimal:
    return credits_of(sum(row["booked"] for row in rows if row["stage"] in stages))
