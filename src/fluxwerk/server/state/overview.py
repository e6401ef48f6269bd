"""What an operator looks at: how many tasks stand where, how long they take, how they end, and who works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from fluxwerk.ledger.database import Database, Row

# How many of the last tasks the durations are taken from.
RECENT = 1000
HUNDREDTHS = 100
# A process whose last sign of life is older than this is not shown, in seconds.
FORGOTTEN_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How many tasks took how long, in seconds."""

    count: int
    p50: float
    p95: float


class Overview:
    """Reads these numbers from one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, now: float) -> list[Row]:
        """Count the tasks that have not ended, by pool, and by whether an engine has them."""
        return list(self._database.ask(OPEN_TASKS, now=now))

    def endings(self, now: float) -> list[Row]:
        """Count the tasks that have ended, by status and details."""
        return list(self._database.ask(ENDINGS, now=now))

    def webhooks(self) -> dict[str, int]:
        """Count the webhooks, by state."""
        return {row["state"]: row["number"] for row in self._database.ask(WEBHOOKS)}

    def processes(self, now: float) -> list[Row]:
        """List the processes that gave a sign of life lately."""
        return list(self._database.ask(PROCESSES, since=now - FORGOTTEN_AFTER))

    def waits(self) -> Percentiles | None:
        """Tell how long the last tasks waited for an engine."""
        return _percentiles([row["began"] - row["accepted"] for row in self._recent()])

    def renders(self) -> Percentiles | None:
        """Tell how long the last images took."""
        return _percentiles([row["ready_at"] - row["began"] for row in self._recent() if row["ready_at"]])

    def _recent(self) -> list[Row]:
        return list(self._database.ask(TIMES, most=RECENT))


def _percentiles(seconds: Sequence[float]) -> Percentiles | None:
    if not seconds:
        return None
    cuts = quantiles(seconds, n=HUNDREDTHS, method="inclusive") if len(seconds) > 1 else [seconds[0]] * HUNDREDTHS
    return Percentiles(len(seconds), round(cuts[49], 3), round(cuts[94], 3))


OPEN_TASKS = """
    select pool, case when began is null and ready_at is null then 'queued' else 'running' end as stage,
        count(*) as number
    from task where forget_at > :now and (ready_at is null or ready_at > :now) group by 1, 2
"""
ENDINGS = "select word, details, count(*) as number from task where ready_at <= :now group by word, details"
WEBHOOKS = "select state, count(*) as number from webhook group by state"
PROCESSES = "select id, kind, engine, models, beat from process where beat > :since order by id"
TIMES = "select accepted, began, ready_at from task where began is not null order by number desc limit :most"
