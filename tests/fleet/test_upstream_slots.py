"""The slots of an account at the service on PostgreSQL: no two processes take the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path

import pytest

from fluxwerk import Task, get_model
from fluxwerk.engines import Order
from fluxwerk.engines.upstream.journal import UpstreamResult
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.fleet import FleetDatabase, FleetStore
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.state.upstream import RowJournal
from fluxwerk.storage import Folder
from fluxwerk.types import Pool

# Each process has its own connections to the database.
PROCESSES, TASKS = 4, 64


@pytest.fixture
def stores(database: str, tmp_path: Path) -> Iterator[list[FleetStore]]:
    with ExitStack() as opened:
        made = (FleetStore(FleetDatabase(database), Folder(tmp_path)) for _ in range(PROCESSES))
        yield [opened.enter_context(closing(store)) for store in made]


def run_tasks(store: FleetStore, model: str) -> list[str]:
    """Let a worker take up more tasks than there are slots, of as many applications."""
    accounts = Accounts(store=store)
    for number in range(TASKS):
        name, account = f"task {number}", accounts.account(f"key-{number}")
        task, order = Task(name, f"http://fluxwerk.test/{number}", model, Decimal(3)), Order(model, name, 0, 64, 64)
        record = TaskRecord(task, account.id, get_model(model), order, accepted=0.0, folder=name)
        accounts.tasks.accept(record, account)
        assert accounts.tasks.begin(name, "worker")
    return [f"task {number}" for number in range(TASKS)]


def intend(journal: RowJournal, name: str, pool: Pool) -> bool:
    """Ask for a slot, as the engine does when it takes a task up."""

    async def ask() -> bool:
        await journal.find(name)
        return await journal.intend(name, pool)

    return asyncio.run(ask())


@pytest.mark.parametrize("model", ["flux-2-pro", "flux-kontext-max"])
def test_processes_that_ask_at_once_get_exactly_the_slots_of_the_account(stores: list[FleetStore], model: str) -> None:
    names, row = run_tasks(stores[0], model), get_model(model)
    pool = Pool(row.pool, row.slots)
    journals = [RowJournal(store, service="ours") for store in stores]

    def ask(number: int) -> bool:
        return intend(journals[number % PROCESSES], names[number], pool)

    with ThreadPoolExecutor(32) as threads:
        granted = list(threads.map(ask, range(TASKS)))
        assert sum(granted) == row.slots

        # Each slot that is given back is granted once more, whoever asks.
        ended = [number for number in range(TASKS) if granted[number]][:3]
        for number in ended:
            asyncio.run(journals[0].end(names[number], UpstreamResult()))
        assert sum(threads.map(ask, [number for number in range(TASKS) if not granted[number]])) == len(ended)


def test_two_accounts_on_one_database_have_their_slots_beside_each_other(stores: list[FleetStore]) -> None:
    names, pool = run_tasks(stores[0], "flux-kontext-max"), Pool("flux-kontext-max", 6)
    journals = [RowJournal(store, service=f"account {number % 2}") for number, store in enumerate(stores)]

    def ask(number: int) -> bool:
        return intend(journals[number % PROCESSES], names[number], pool)

    with ThreadPoolExecutor(32) as threads:
        assert sum(threads.map(ask, range(TASKS))) == 2 * pool.slots
