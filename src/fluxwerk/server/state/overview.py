"""What an operator looks at beside the figures: how long tasks take, how they end, and who works."""

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

    def endings(self, now: float) -> list[Row]:
        """Count the tasks that have ended, by status and details."""
        return list(self._database.ask(ENDINGS, now=now))

    def webhooks(self) -> dict[str, int]:
        """Count the webhooks, by state."""
        return {row["state"]: row["number"] for row in self._database.ask(WEBHOOKS)}

    def processes(self, now: float) -> list[Row]:
        """List the processes that gave a sign of life lately."""
        return list(self._database.ask(PROCESSES, since=now - FORGOTTEN_AFTER))

    def durations(self) -> tuple[Percentiles | None, Percentiles | None]:
        """Tell how long the last tasks waited for an engine, and how long their images took."""
        recent = self._database.ask(TIMES, most=RECENT)
        waits = _percentiles([row["began"] - row["accepted"] for row in recent])
        return waits, _percentiles([row["ready_at"] - row["began"] for row in recent if row["ready_at"]])


def _percentiles(seconds: Sequence[float]) -> Percentiles | None:
    if not seconds:
        return None
    cuts = quantiles(seconds, n=HUNDREDTHS, method="inclusive") if len(seconds) > 1 else [seconds[0]] * HUNDREDTHS
    return Percentiles(len(seconds), round(cuts[49], 3), round(cuts[94], 3))


ENDINGS = "select word, details, count(*) as number from task where ready_at <= :now group by word, details"
WEBHOOKS = "select state, count(*) as number from webhook group by state"
PROCESSES = "select id, kind, engine, models, beat from process where beat > :since order by id"
TIMES = "select accepted, began, ready_at from task where began is not null order by number desc limit :most"
