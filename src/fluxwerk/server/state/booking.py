"""How tasks are booked: their slot, their cost, their row and their webhook, or nothing of them.

Alone, a task is booked step by step, and what refuses it is said precisely.  Several go into one transaction whose
statements leave in one exchange; if one of them would be refused, or would wait, none is booked there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from fluxwerk.errors import ConflictError, StorageError
from fluxwerk.ledger.database import Row, Statement, UnknownCommitError
from fluxwerk.server.state import charges, rows
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.charges import CreditsSpentError
from fluxwerk.server.state.queue import Slots, SlotsTakenError, TaskQueue, slots_with, turn_statement
from fluxwerk.server.state.rows import NEVER, millionths
from fluxwerk.server.state.statements import ADD_WEBHOOK, INSERT, INSERT_TURN, PRIORITY
from fluxwerk.server.state.store import NO_JOB, Store
from fluxwerk.server.state.task import TaskRecord


class RepeatedSubmitError(Exception):
    """A task with this idempotency key is there already."""


class Booking(NamedTuple):
    """A task that is to be accepted, and the account that pays for it."""

    job: TaskRecord
    account: Account


class Bookings:
    """Books the tasks of a store; one that is stuck from the first is kept for `keep` seconds."""

    def __init__(self, store: Store, queue: TaskQueue, keep: float) -> None:
        self._store = store
        self._database = store.database
        self._queue = queue
        self._keep = keep

    def book(self, job: TaskRecord, account: Account) -> Slots | None:
        """Book one task, and return the slots that are held with its own, if it has one.

        Raises `SlotsTakenError`, `CreditsSpentError`, `SubmitRateError` and `RepeatedSubmitError`.
        """
        with self._database.write() as transaction:
            # This locks the account until the end, so the counts below hold, whoever else submits for it.
            charges.book(transaction, account, job.model.name, millionths(job.task.cost) or 0, job.accepted)
            placed, slots = self._queue.place(transaction, job, account)
            handed = self._store.hand_over(transaction, job) if job.stage == "queued" else None
            if not transaction.run(INSERT, **self._row(job, account), **placed, job=handed):
                raise RepeatedSubmitError
            for statement in _webhook(job):
                transaction.run(statement.sql, **statement.values)
        return slots

    def book_all(self, bookings: Sequence[Booking]) -> list[Slots] | None:
        """Book several tasks as `book` does, and return the slots of each, or `None` if each has to be booked alone.

        Then nothing has happened.  Accounts with a rate are booked alone.
        """
        # Whoever locks several accounts does so in their order, so that nobody waits for each other.
        order = sorted(range(len(bookings)), key=lambda place: bookings[place].account.id)
        hurry = self._database.hurry
        written = {place: self._statements(*bookings[place]) for place in order}
        taken: dict[int, Row] = {}
        try:
            with self._database.write() as transaction:
                answers = iter(transaction.together([*hurry, *chain(*written.values())])[len(hurry) :])
                for place in order:
                    taken[place] = _read(bookings[place], list(islice(answers, len(written[place]))))
        except UnknownCommitError:
            raise
        except (StorageError, ConflictError, CreditsSpentError, SlotsTakenError, RepeatedSubmitError):
            return None
        return [slots_with(taken[place]) for place in range(len(bookings))]

    def _statements(self, job: TaskRecord, account: Account) -> list[Statement]:
        """Write what books a task whose turn only the database knows."""
        charged = charges.statements(account, job.model.name, millionths(job.task.cost) or 0, job.accepted)
        placed = {"slots": account.slots(job.model), "share": account.share, "holds_until": NEVER}
        handed = self._store.handing_over(job, PRIORITY) if job.stage == "queued" else NO_JOB
        insert = INSERT_TURN.format(job=handed.sql)
        row = {**self._row(job, account), **placed, **handed.values}
        return [*charged, turn_statement(job, account), Statement(insert, row), *_webhook(job)]

    def _row(self, job: TaskRecord, account: Account) -> dict[str, Any]:
        # What is stuck from the first goes as if it had ended now.
        forget_at = job.accepted + self._keep if job.stage == "stuck" else NEVER
        return {**rows.to_row(job), "forget_at": forget_at, "keep": account.keep}


def _read(booking: Booking, answers: Sequence[Sequence[Row]]) -> Row:
    """Read what the statements of a task came to; raises what refuses it."""
    job, account = booking
    *charged, taken, inserted = answers[: len(answers) - len(_webhook(job))]
    charges.judge(account, millionths(job.task.cost) or 0, charged)
    if not taken:
        raise SlotsTakenError
    if not inserted:
        raise RepeatedSubmitError
    return taken[0]


def _webhook(job: TaskRecord) -> list[Statement]:
    if job.webhook is None:
        return []
    values = {"task": job.task.id, "account": job.account, "url": job.webhook.url, "secret": job.webhook.secret}
    return [Statement(ADD_WEBHOOK, values)]
