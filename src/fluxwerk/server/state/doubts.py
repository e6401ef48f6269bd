"""Tasks of a gateway whose submit was not answered: listed until a person says whether the service charged for them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from fluxwerk.ledger.database import Database
from fluxwerk.protocol.wire import dump
from fluxwerk.server.state import charges
from fluxwerk.server.state.rows import credits_of

LIST = "select * from upstream where doubt is not null and settled is null order by intended"
SETTLE = """
    update upstream set settled = :word where task = :id and doubt is not null and settled is null
    returning account, model, intended, cost
"""
UNCHARGE = "update task set cost = 0, settled = 0 where id = :id"
TELL = "update task set details = :details where id = :id"


@dataclass(frozen=True, slots=True)
class UpstreamDoubt:
    """A task in doubt: `booked` credits may have been charged at the service.

    `intended` is when its submit left, in seconds since 1970, and `account` the digest of the key that pays.
    """

    task: str
    account: str
    model: str
    booked: Decimal | None
    intended: float
    reason: str


class UpstreamDoubts:
    """The tasks in doubt of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def listed(self) -> list[UpstreamDoubt]:
        """List those that nobody has settled, the oldest first."""
        return [
            UpstreamDoubt(
                row["task"], row["account"], row["model"], credits_of(row["cost"]), row["intended"], row["doubt"]
            )
            for row in self._database.ask(LIST)
        ]

    def settle(self, task: str, *, charged: bool) -> bool:
        """Let the cost of a task stay booked or give it back; says whether the task was in doubt."""
        with self._database.write() as transaction:
            word = "charged" if charged else "not charged"
            doubt = transaction.one(SETTLE, id=task, word=word)
            if doubt:
                told = {"error": "in_doubt", "message": f"The service did not answer: {word}.", "settled": word}
                transaction.run(TELL, id=task, details=dump(told).decode())
            if doubt and not charged:
                # The task itself may be forgotten by now.
                transaction.run(UNCHARGE, id=task)
                back = -(doubt["cost"] or 0)
                charges.settle(transaction, doubt["account"], doubt["model"], doubt["intended"], back)
            return doubt is not None
