"""The order in which tasks get their turn: fair between accounts, by priority within one.

A task whose account has a free slot is `queued` at once, and workers take queued tasks in the order of their `turn`.
A task beyond the slots is `waiting` until one of its account's tasks ends.  Turns are those of start-time fair
queuing: each task moves its account back by its share, and nobody's first task comes after another's tenth.
"""

from __future__ import annotations

from typing import NamedTuple

from fluxwerk.ledger.database import Row, Statement, Transaction
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.dialect import StateDatabase
from fluxwerk.server.state.rows import NEVER
from fluxwerk.server.state.statements import WRAP
from fluxwerk.server.state.task import TaskRecord

# How many tasks ahead are counted; a place behind them is told as this one.
FARTHEST = 10_000
# The endings from which the pace of an account is measured.
MEASURED = 20


class SlotsTakenError(Exception):
    """The account has as many tasks in flight, and in the queue, as it may have."""


class Slots(NamedTuple):
    """How many slots of a pool an account's tasks hold, and when the first of them is free, as far as that is known."""

    busy: int
    free: float


class TaskQueue:
    """The queue of a database; each account may have `longest` tasks waiting beyond its slots."""

    def __init__(self, database: StateDatabase, longest: int = 0) -> None:
        self._database = database
        self.longest = longest

    def place(
        self, transaction: Transaction, job: TaskRecord, account: Account
    ) -> tuple[dict[str, float], Slots | None]:
        """Give a new task its turn or let it wait; raises `SlotsTakenError`.

        Returns the columns that say so, and the slots that are held with its own, if it has one.  The account has been
        locked by its charge.  A task whose ending is decided does not wait.
        """
        slots = account.slots(job.model)
        columns = {"slots": slots, "share": account.share, "turn": 0, "holds_until": NEVER}
        taken = _take_turn(transaction, job.account, job.model.pool, job.accepted, slots, account.share)
        if taken is not None:
            turn = taken["turn"] - account.share
            job.priority = _priority(turn)
            return {**columns, "turn": turn}, slots_with(taken)
        room = transaction.run(ADD_WAITING, account=job.account, longest=self.longest) if job.stage == "queued" else 0
        if not room:
            raise SlotsTakenError
        job.stage = "waiting"
        return {**columns, "holds_until": 0.0}, None

    def release(self, transaction: Transaction, account: str, pool: str, now: float) -> list[str]:
        """Queue tasks that wait for as many slots as are free, and return their ids."""
        # The account is locked first, so that no two processes see the same free slot.
        if not transaction.run(LOCK_WAITING, account=account):
            return []
        queued: list[str] = []
        # A task that its owner cancels at this moment is passed over: it is locked, and its end waits for the account.
        following = NEXT_WAITING.format(skip_locked=self._database.skip_locked)
        while (row := transaction.one(following, account=account, pool=pool)) is not None:
            taken = _take_turn(transaction, account, pool, now, row["slots"], row["share"])
            if taken is None:
                break
            turn = taken["turn"] - row["share"]
            if transaction.run(QUEUE, id=row["id"], turn=turn, priority=_priority(turn), never=NEVER):
                transaction.run(DROP_WAITING, account=account)
                queued.append(row["id"])
        return queued

    def leave(self, transaction: Transaction, account: str) -> None:
        """Count a task that ended while it waited."""
        transaction.run(DROP_WAITING, account=account)

    def waiting(self) -> list[str]:
        """Name the accounts that have tasks waiting."""
        return [row["id"] for row in self._database.ask("select id from account where waiting > 0")]

    def room(self, waiting: int) -> int:
        """Count the tasks that an account may still leave waiting, beside those that wait."""
        return max(0, self.longest - waiting)

    def position(self, job: TaskRecord) -> int:
        """Say which of its account's waiting tasks a task is: 1 is the next."""
        values = {"account": job.account, "pool": job.model.pool, "urgency": job.urgency, "number": job.number}
        (row,) = self._database.ask(AHEAD_OF, most=FARTHEST - 1, **values)
        ahead: int = row["ahead"]
        return ahead + 1

    def pause(self, account: str, pool: str, now: float) -> float | None:
        """Estimate the seconds from one start of an account's tasks to the next, by its latest endings."""
        rows = self._database.ask(LATEST, account=account, pool=pool, now=now, most=MEASURED)
        return (now - rows[-1]["ended"]) / len(rows) if rows else None


def _priority(turn: int) -> int:
    """Write a turn as what is taken first when it is highest, within 32 bits; where it wraps, some change places."""
    return -(turn % WRAP)


def _take_turn(transaction: Transaction, account: str, pool: str, now: float, slots: int, share: int) -> Row | None:
    """Give an account its turn, not before what runs now and after its own last one; `None` if no slot is free.

    The row has where its next `turn` is, how many slots are `busy`, and when the first of them is `free`.
    """
    return transaction.one(TAKE_TURN, account=account, pool=pool, now=now, slots=slots, share=share)


def turn_statement(job: TaskRecord, account: Account) -> Statement:
    """Write what gives a new task of an account its turn; `slots_with` reads the answer."""
    values = {"account": account.id, "pool": job.model.pool, "now": job.accepted}
    return Statement(TAKE_TURN, {**values, "slots": account.slots(job.model), "share": account.share})


def slots_with(taken: Row) -> Slots:
    """Count the slots of an account that holds one more now."""
    return Slots(taken["busy"] + 1, taken["free"] or NEVER)


# The turn that was started last says how far all accounts are; with nobody under way it is the farthest account.
TAKE_TURN = """
    update account set turn = :share + case when turn > started.front then turn else started.front end
    from (
        select coalesce(
            (select max(turn) from task where stage = 'running' or word = 'Ready'),
            (select min(turn) from task where stage = 'queued'),
            (select max(turn) from account),
            0
        ) as front
    ) as started
    where id = :account and (
        select count(*) from (
            select 1 from task where account = :account and pool = :pool and holds_until > :now limit :slots
        ) as counted
    ) < :slots returning turn, (
        select count(*) from task where account = :account and pool = :pool and holds_until > :now
    ) as busy, (
        select min(holds_until) from task where account = :account and pool = :pool and holds_until > :now
    ) as free
"""
ADD_WAITING = "update account set waiting = waiting + 1 where id = :account and waiting < :longest"
DROP_WAITING = "update account set waiting = waiting - 1 where id = :account and waiting > 0"
LOCK_WAITING = "update account set waiting = waiting where id = :account and waiting > 0"
NEXT_WAITING = """
    select id, slots, share from task where account = :account and pool = :pool and stage = 'waiting'
    order by urgency desc, number limit 1 {skip_locked}
"""
QUEUE = """
    update task set stage = 'queued', turn = :turn, priority = :priority, holds_until = :never
    where id = :id and stage = 'waiting'
"""
AHEAD_OF = """
    select count(*) as ahead from (
        select 1 from task where account = :account and pool = :pool and stage = 'waiting'
            and (urgency > :urgency or (urgency = :urgency and number < :number)) limit :most
    ) as counted
"""
LATEST = """
    select holds_until as ended from task
    where account = :account and pool = :pool and holds_until > 0 and holds_until <= :now
    order by holds_until desc limit :most
"""
