"""Sums over the rows of a state, for metrics and for whoever watches it.

Accounts that belong to no application are summed as `other`: there may be as many as there are strangers.
"""

from __future__ import annotations

from collections.abc import Iterable

from fluxwerk import catalog
from fluxwerk.ledger.database import Database, Row
from fluxwerk.server.state.rows import MILLION
from fluxwerk.server.state.upstream import LONGEST_TASK

POOLS = {model.pool: model.slots for model in catalog.list_models().values()}


class Figures:
    """Reads the sums of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_status(self, now: float) -> dict[str, int]:
        """Count the tasks that are kept, by status."""
        return {row["status"]: row["number"] for row in self._database.ask(BY_STATUS, now=now)}

    def queue(self) -> dict[tuple[str, str], int]:
        """Count the tasks that no engine has taken up, by model and stage."""
        return {(row["model"], row["stage"]): row["number"] for row in self._database.ask(QUEUE)}

    def slots_used(self, now: float) -> dict[tuple[str, str], int]:
        """Count the slots that are held, by application and pool."""
        return _pairs(self._database.ask(SLOTS, now=now), "pool")

    def slots_free(self, now: float) -> dict[tuple[str, str], int]:
        """Count the slots that each application has left, by pool."""
        used = self.slots_used(now)
        rows = self._database.ask("select name, slots from application where revoked is null")
        return {
            (row["name"], pool): max(0, (row["slots"] or usual) - used.get((row["name"], pool), 0))
            for row in rows
            for pool, usual in POOLS.items()
        }

    def upstream_slots_used(self, now: float) -> dict[tuple[str, str], int]:
        """Count the slots that are held at the service behind, by account there and pool."""
        return _pairs(self._database.ask(UPSTREAM_SLOTS, since=now - LONGEST_TASK), "pool")

    def spend(self) -> dict[tuple[str, str], float]:
        """Sum the credits that were spent, by application and model."""
        return {pair: number / int(MILLION) for pair, number in _pairs(self._database.ask(SPENT), "model").items()}

    def in_doubt(self) -> int:
        """Count the tasks whose submit to the service behind was not answered, and that nobody has settled."""
        (row,) = self._database.ask(DOUBTS)
        number: int = row["number"]
        return number

    def webhook_lag(self, now: float) -> float:
        """Say how long the oldest webhook that is due has been due."""
        (row,) = self._database.ask(OLDEST_WEBHOOK)
        return 0.0 if row["due"] is None else max(0.0, now - row["due"])

    def heartbeats(self, now: float) -> dict[tuple[str, str], float]:
        """Say how long ago each process said that it works."""
        return {(row["id"], row["kind"]): max(0.0, now - row["beat"]) for row in self._database.ask(PROCESSES)}


def _pairs(rows: Iterable[Row], label: str) -> dict[tuple[str, str], int]:
    return {(row["name"], row[label]): int(row["number"]) for row in rows}


BY_STATUS = """
    select case when ready_at <= :now then word else 'Pending' end as status, count(*) as number
    from task where forget_at > :now group by 1 order by 1
"""
# Each part reads an index of just these tasks, however many others are kept.
QUEUE = """
    select model, stage, count(*) as number from task where stage = 'queued' group by model, stage
    union all
    select model, stage, count(*) as number from task where stage = 'waiting' group by model, stage
    order by model, stage
"""
SLOTS = """
    select coalesce(application.name, 'other') as name, pool, count(*) as number
    from task left join application on application.account = task.account
    where holds_until > :now group by 1, pool order by 1, pool
"""
UPSTREAM_SLOTS = """
    select service as name, pool, count(*) as number
    from upstream where ended is null and intended > :since group by service, pool order by service, pool
"""
SPENT = """
    select coalesce(application.name, 'other') as name, model, sum(credits) as number
    from spend left join application on application.account = spend.account group by 1, model order by 1, model
"""
DOUBTS = "select count(*) as number from upstream where doubt is not null and settled is null"
OLDEST_WEBHOOK = "select min(due) as due from webhook where state in ('waiting', 'pending')"
PROCESSES = "select id, kind, beat from process"
