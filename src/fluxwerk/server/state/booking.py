"""How tasks are booked: their slot, their cost, their row and their webhook, or nothing of them.

Alone, a task is booked step by step, and what refuses it is said precisely.  Several go into one transaction whose
statements leave in one exchange; if one of them would be refused, or would wait, none is booked there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, groupby, islice
from typing import Any, NamedTuple

from fluxwerk.ledger.database import Row, Statement, UnknownCommitError
from fluxwerk.server.state import charges, rows
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.application import day_of
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

    @property
    def held(self) -> tuple[str, str]:
        """Whose slots it holds: those of an account and a pool."""
        return self.account.id, self.job.model.pool


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
        if any(account.rate is not None for _, account in bookings):
            return None
        # Whoever locks several accounts does so in their order, so that nobody waits for each other.
        order = sorted(range(len(bookings)), key=lambda place: bookings[place].held)
        shares = [list(places) for _, places in groupby(order, key=lambda place: bookings[place].held)]
        written = [self._statements([bookings[place] for place in places]) for places in shares]
        hurry, calm = self._database.hurry, self._database.calm
        taken: dict[int, Slots] = {}
        try:
            with self._database.write() as transaction:
                answers = iter(transaction.together([*hurry, *chain(*written), *calm])[len(hurry) :])
                for places, own in zip(shares, written, strict=True):
                    slots = _read([bookings[place] for place in places], list(islice(answers, len(own))))
                    taken.update(zip(places, slots, strict=True))
        except UnknownCommitError:
            raise
        except Exception:  # noqa: BLE001  (whose mistake it is, and what is wrong, is found when each is booked alone)
            return None
        return [taken[place] for place in range(len(bookings))]

    def _statements(self, share: Sequence[Booking]) -> list[Statement]:
        """Write what books tasks of one account and pool: they are charged in one sum, and take their turns at once."""
        account = share[0].account
        inserts = [self._insert(booking, len(share) - place) for place, booking in enumerate(share)]
        webhooks = [statement for job, _ in share for statement in _webhook(job)]
        return [*_charges(share), turn_statement(share[0].job, account, len(share)), *inserts, *webhooks]

    def _insert(self, booking: Booking, back: int) -> Statement:
        """Write the row of a task whose turn is so many shares before the next one of its account."""
        job, account = booking
        placed = {"slots": account.slots(job.model), "share": account.share, "holds_until": NEVER}
        handed = self._store.handing_over(job, PRIORITY) if job.stage == "queued" else NO_JOB
        values = {**self._row(job, account), **placed, **handed.values, "back": back * account.share}
        return Statement(INSERT_TURN.format(job=handed.sql), values)

    def _row(self, job: TaskRecord, account: Account) -> dict[str, Any]:
        # What is stuck from the first goes as if it had ended now.
        forget_at = job.accepted + self._keep if job.stage == "stuck" else NEVER
        return {**rows.to_row(job), "forget_at": forget_at, "keep": account.keep}


def _charges(share: Sequence[Booking]) -> list[Statement]:
    """Write what charges the tasks of one account, each on its day and for its model."""
    account = share[0].account
    sums: dict[tuple[str, str], list[int]] = defaultdict(list)
    for job, _ in share:
        sums[day_of(job.accepted), job.model.name].append(millionths(job.task.cost) or 0)
    costs = {where: (sum(found), len(found)) for where, found in sums.items()}
    return charges.statements(account, costs, max(job.accepted for job, _ in share))


def _read(share: Sequence[Booking], answers: Sequence[Sequence[Row]]) -> list[Slots]:
    """Read what the statements of an account's tasks came to; raises what refuses one of them."""
    charged = len(_charges(share))
    taken, inserted = answers[charged], answers[charged + 1 : charged + 1 + len(share)]
    cost = sum(millionths(job.task.cost) or 0 for job, _ in share)
    charges.judge(share[0].account, cost, answers[:charged])
    if not taken:
        raise SlotsTakenError
    if not all(inserted):
        raise RepeatedSubmitError
    return [slots_with(taken[0], place) for place, _ in enumerate(share, 1)]


def _webhook(job: TaskRecord) -> list[Statement]:
    if job.webhook is None:
        return []
    values = {"task": job.task.id, "account": job.account, "url": job.webhook.url, "secret": job.webhook.secret}
    return [Statement(ADD_WEBHOOK, values)]
