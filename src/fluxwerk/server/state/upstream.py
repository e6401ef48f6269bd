"""The gateway's journal as rows beside the tasks: any worker of the state goes on where another one died.

The money moves with it: a task costs what the service upstream says, from its first word to its last.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import TypeVar

from fluxwerk.engines.upstream.journal import UpstreamEntry, UpstreamResult
from fluxwerk.errors import ConflictError
from fluxwerk.ledger.database import Transaction
from fluxwerk.protocol.wire import dump
from fluxwerk.server.state import charges
from fluxwerk.server.state.rows import credits_of, millionths
from fluxwerk.server.state.store import Store
from fluxwerk.types import Pool, Task

T = TypeVar("T")
# A slot is held no longer than this many seconds, whatever became of its task.
LONGEST_TASK = 3600.0

FIND = "select task.fence, upstream.* from task left join upstream on upstream.task = task.id where task.id = :id"
# Whoever grants a slot holds this row until the grant is written, so that the count below holds.
LOCK_POOL = """
    insert into pool (name, granted) values (:pool, 1) on conflict (name) do update set granted = pool.granted + 1
"""
# What a release that knew no accounts wrote counts for each of them.
SLOTS_HELD = """
    select count(*) as held from upstream
    where pool = :pool and ended is null and intended > :since and service in (:service, '')
"""
INTEND = """
    insert into upstream (task, account, model, pool, intended, service)
    select id, account, model, :pool, :now, :service from task where id = :id and fence = :fence and stage = 'running'
    on conflict (task) do nothing
"""
WITHDRAW = "delete from upstream where task = :id and id is null"
ACCEPT = """
    update upstream set id = :upstream, url = :url, cost = :cost, submitted = :now, doubt = null, settled = null
    where task = :id and id is null
"""
DOUBT = """
    update upstream set doubt = :reason, ended = :now, cost = (select task.cost from task where task.id = :id)
    where task = :id and id is null and doubt is null
"""
END = "update upstream set ended = coalesce(ended, :now) where task = :id"
PRICE = "select account, model, accepted, cost, settled, options from task where id = :id"
NAME_ENGINE = "update task set engine = :engine where id = :id and stage = 'running'"
# Characters of a name that another server gives.
LONGEST_ENGINE = 64
REPRICE = "update task set cost = :cost, settled = :settled, options = :options where id = :id"


class RowJournal:
    """The journal in the database of a store; where that may wait for a network, its moves run in a thread.

    `service` is a digest of the account at the service, whose slots these are.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.time, *, service: str = "") -> None:
        self._store = store
        self._service = service
        self._database = store.database
        self._now = now
        # Under which fence this process took an order up; another one that has it by now has a higher one.
        self._fences: dict[str, int] = {}

    @property
    def account(self) -> str:
        """The account whose slots these are."""
        return self._service

    async def find(self, order: str) -> UpstreamEntry | None:
        """Return what is known of an order, and note under which fence it was taken up."""
        return await self._do(lambda: self._find(order))

    async def intend(self, order: str, pool: Pool) -> bool:
        """Take a slot of the account, if one is free over all machines; raises `ConflictError`."""
        return await self._do(lambda: self._intend(order, pool))

    async def flush(self) -> None:
        """Come back when the rows are on the disk."""
        await self._store.flushed()

    async def withdraw(self, order: str) -> None:
        """Forget the intent."""
        await self._do(lambda: self._change(WITHDRAW, order))

    async def accept(self, order: str, task: Task) -> None:
        """Keep the task, and book what the service says that it costs."""
        await self._do(lambda: self._accept(order, task))

    async def doubt(self, order: str, reason: str) -> None:
        """Keep the reason until a person settles it."""
        await self._do(lambda: self._change(DOUBT, order, reason=reason, now=self._now()))

    async def end(self, order: str, result: UpstreamResult) -> None:
        """Give the slot back, and book what the task costs in the end."""
        await self._do(lambda: self._end(order, result))

    def _find(self, order: str) -> UpstreamEntry | None:
        found = self._database.ask(FIND, id=order)
        if not found:
            return None
        row = found[0]
        self._fences[order] = row["fence"]
        if row["task"] is None:
            return None
        task = None
        if row["id"] is not None:
            task = Task(row["id"], row["url"], row["model"], credits_of(row["cost"]))
        foreign = row["service"] not in (self._service, "")
        return UpstreamEntry(row["pool"], row["intended"], task, row["submitted"], row["doubt"], foreign)

    def _intend(self, order: str, pool: Pool) -> bool:
        now = self._now()
        with self._database.write() as transaction:
            transaction.run(LOCK_POOL, pool=pool.name)
            mine = {"pool": pool.name, "service": self._service}
            held = transaction.one(SLOTS_HELD, since=now - LONGEST_TASK, **mine)
            if held is None or held["held"] >= pool.slots:
                return False
            if not transaction.run(INTEND, id=order, now=now, fence=self._fences.get(order, -1), **mine):
                raise ConflictError(f"Task {order} has ended, or another worker has it; its submit did not leave.")
            return True

    def _accept(self, order: str, task: Task) -> None:
        cost = millionths(task.cost)
        told = {"upstream": task.id, "url": task.polling_url, "cost": cost, "now": self._now()}
        with self._database.write() as transaction:
            if transaction.run(ACCEPT, id=order, **told):
                _reprice(transaction, order, cost)

    def _end(self, order: str, result: UpstreamResult) -> None:
        made = {"seed": result.seed, "made_prompt": result.prompt}
        with self._database.write() as transaction:
            transaction.run(END, id=order, now=self._now())
            _reprice(transaction, order, millionths(result.cost), **made)
            if result.engine is not None:
                # A placeholder that another server drew may not pass as FLUX here.
                transaction.run(NAME_ENGINE, id=order, engine=result.engine[:LONGEST_ENGINE])
        self._fences.pop(order, None)

    def _change(self, sql: str, order: str, **values: str | float) -> None:
        with self._database.write() as transaction:
            transaction.run(sql, id=order, **values)

    async def _do(self, act: Callable[[], T]) -> T:
        return await asyncio.to_thread(act) if self._database.blocks else act()


def _reprice(transaction: Transaction, task: str, cost: int | None, **made: int | str | None) -> None:
    """Book what a task costs by now instead of what was booked before, and note what it was made from.

    An unknown cost leaves the old one.  What has ended unpaid stays so unless the service charged for it.
    """
    row = transaction.one(PRICE, id=task)
    if row is None:
        return
    booked = row["cost"] if row["settled"] is None else row["settled"]
    cost = booked if cost is None else cost
    settled = None if row["settled"] is None else cost
    told = {**json.loads(row["options"]), **{name: value for name, value in made.items() if value is not None}}
    transaction.run(REPRICE, id=task, cost=cost, settled=settled, options=dump(told).decode())
    charges.settle(transaction, row["account"], row["model"], row["accepted"], (cost or 0) - (booked or 0))
