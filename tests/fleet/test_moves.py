"""The moves on PostgreSQL: what one process decides holds for all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from fluxwerk import Task, get_model
from fluxwerk.engines import Order
from fluxwerk.errors import StorageError
from fluxwerk.ledger.database import DatabaseError, UnknownCommitError
from fluxwerk.ledger.postgresql import PostgresDatabase
from fluxwerk.server.errors import ServerError
from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.handlers.health import ready
from fluxwerk.server.handlers.tasks import listed
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.charges import CreditsSpentError
from fluxwerk.server.state.fleet import FleetDatabase, FleetStore
from fluxwerk.server.state.queue import SlotsTakenError
from fluxwerk.server.state.removals import RETRY, UNNAMED
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.storage import Folder
from support.frail import FrailStorage
from support.postgres import PostgresServer


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[FleetStore]:
    opened = FleetStore(FleetDatabase(database), Folder(tmp_path))
    yield opened
    opened.close()


def job(accounts: Accounts, name: str, model: str = "flux-2-pro") -> TaskRecord:
    account = accounts.account("key")
    order = Order(model, f"prompt {name} with ' and % and :id", 0, 64, 64)
    task = Task(name, f"http://fluxwerk.test/{name}", model, Decimal("1.4"))
    return TaskRecord(task, account.id, get_model(model), order, accepted=0.0, folder=f"folder {name}")


def accept(accounts: Accounts, name: str, model: str = "flux-2-pro") -> TaskRecord:
    one = job(accounts, name, model)
    accounts.tasks.accept(one, accounts.account("key"))
    return one


def test_a_hundred_submits_at_once_against_credit_for_ten_take_exactly_ten(store: FleetStore) -> None:
    accounts = Accounts(credit=Decimal(14), store=store)

    def submit(number: int) -> bool:
        try:
            accept(accounts, str(number))
        except CreditsSpentError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        taken = sum(threads.map(submit, range(100)))
    assert taken == 10
    assert accounts.account("key").credits == 0
    assert len(accounts.tasks.all(0.0)) == 10


def test_a_hundred_submits_at_once_take_exactly_the_slots(store: FleetStore) -> None:
    accounts = Accounts(store=store)

    def submit(number: int) -> bool:
        try:
            accept(accounts, str(number), "flux-kontext-max")
        except SlotsTakenError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(submit, range(100))) == 6
    assert accounts.tasks.slots(accounts.account("key").id, "flux-kontext-max", 0.0).busy == 6


def test_a_slot_is_given_on_while_the_next_task_is_being_cancelled(store: FleetStore) -> None:
    accounts = Accounts(store=store, queue=9)
    for number in range(8):
        accept(accounts, str(number), "flux-kontext-max")
    held = accounts.tasks.begin("0", "worker")

    def give_on() -> bool:
        return accounts.tasks.vacate(held, 1.0)

    with ThreadPoolExecutor(1) as other, store.database.write() as transaction:
        # As `end` does before it locks the account.
        transaction.run("update task set fence = fence + 1 where id = '6'")
        assert other.submit(give_on).result(5)
    assert accounts.tasks.find("7", 1.0).stage == "queued"
    assert accounts.tasks.find("6", 1.0).stage == "waiting"


def test_a_task_comes_back_from_its_row_as_it_was(store: FleetStore) -> None:
    accounts = Accounts(store=store)
    one = accept(accounts, "1")
    found = accounts.tasks.find("1", 0.0)
    assert (found.task, found.order.prompt, found.model) == (one.task, one.order.prompt, one.model)


def test_an_id_with_a_nul_is_of_no_task(store: FleetStore) -> None:
    assert Accounts(store=store).tasks.find("a\0b", 0.0) is None


@pytest.mark.parametrize("name", ["q", "status", "model", "tag", "before"])
def test_a_search_with_a_nul_is_the_callers_mistake(store: FleetStore, name: str) -> None:
    state = ServerState(Accounts(store=store), lambda: 0.0)
    request = ServerRequest("GET", "/v1/tasks", "http://fluxwerk.test", {name: "a\0b"}, {"x-key": "key"}, b"")
    with pytest.raises(ServerError, match="NUL"):
        listed(state, request)


def test_a_worker_that_lost_its_task_changes_nothing(store: FleetStore) -> None:
    tasks = Accounts(store=store).tasks
    accept(Accounts(store=store), "1")
    late = tasks.begin("1", "first")
    now = tasks.begin("1", "second")
    assert not tasks.finish(late, "images/late.png", 4, 1.0, 1.0)
    assert not tasks.end(late, Ending("Error"), 1.0, 1.0, late.fence)
    assert not tasks.advance(late, 0.5, None, 1.0)
    assert tasks.finish(now, "images/now.png", 3, 1.0, 1.0)
    # Its answer may be lost on the way, so the same move can be made again; a late one still not.
    assert tasks.finish(now, "images/now.png", 3, 1.0, 1.0)
    assert not tasks.finish(late, "images/late.png", 4, 1.0, 1.0)
    assert tasks.find("1", 1.0).image == "images/now.png"


def test_a_task_and_its_job_are_both_there_or_neither(store: FleetStore) -> None:
    accounts = Accounts(credit=Decimal(2), store=store)
    accept(accounts, "1")
    with pytest.raises(CreditsSpentError):
        accept(accounts, "2")
    jobs = store.database.ask("select id, queue_name, args from procrastinate_jobs")
    assert [(one["queue_name"], one["args"]) for one in jobs] == [("flux-2-pro", {"identity": "1"})]


def test_a_task_without_a_job_is_handed_over_again(store: FleetStore) -> None:
    accept(Accounts(store=store), "1")
    assert store.recover() == 0
    with store.database.write() as transaction:
        transaction.run("delete from procrastinate_jobs")
    assert store.recover() == 1
    assert store.recover() == 0
    assert len(store.database.ask("select id from procrastinate_jobs")) == 1


def test_a_search_for_lost_tasks_goes_through_a_long_queue_in_parts(store: FleetStore) -> None:
    accounts = Accounts(store=store)
    for number in range(5):
        accept(accounts, str(number))
    store.searched = 2
    with store.database.write() as transaction:
        transaction.run("delete from procrastinate_jobs")
    assert [store.recover() for _ in range(4)] == [2, 2, 1, 0]
    with store.database.write() as transaction:
        transaction.run("delete from procrastinate_jobs where args ->> 'identity' in ('0', '4')")
    # What comes after the last are the first again.
    assert sum(store.recover() for _ in range(3)) == 2


def test_a_model_is_served_while_a_process_gives_signs_of_life(store: FleetStore) -> None:
    assert store.served() == {}
    store.beat("a worker", "worker", "offline", ["flux-2-pro"])
    store._served = 0.0, {}
    assert store.served() == {"flux-2-pro": {"offline"}}
    store.leave("a worker")
    store._served = 0.0, {}
    assert store.served() == {}


def test_a_transaction_that_falls_silent_frees_what_it_locked(database: str) -> None:
    silent, other = PostgresDatabase(database, silent=0.2), PostgresDatabase(database)
    with other.write() as transaction:
        transaction.run("create table held as select 0 as number")

    def write_while_another_waits() -> None:
        with silent.write() as first:
            first.run("update held set number = 1")
            with other.write() as second:
                second.run("update held set number = 2")

    with pytest.raises(StorageError):
        write_while_another_waits()
    assert other.ask("select number from held") == [{"number": 2}]
    silent.close()
    other.close()


def test_files_that_the_storage_does_not_remove_go_once_it_does(database: str) -> None:
    files = FrailStorage()
    store = FleetStore(FleetDatabase(database), files)
    accounts = Accounts(store=store)
    one = accept(accounts, "one")
    accounts.tasks.removals.announce(["inputs/one.source"], 0.0)
    for name in ("inputs/one.source", "images/one.png"):
        files.put(name, b"bytes")
    begun = accounts.tasks.begin(one.task.id, "worker")
    assert begun is not None
    assert accounts.tasks.finish(begun, "images/one.png", 5, 0.0, 0.0)
    files.refuses = "remove", ""
    accounts.tasks.discard(begun)
    accounts.tasks.removals.sweep(UNNAMED)
    assert files.names() == ["images/one.png", "inputs/one.source"]
    files.refuses = None
    accounts.tasks.removals.sweep(UNNAMED + RETRY)
    assert files.names() == store.database.ask("select file from removal") == []
    store.close()


def test_a_server_is_not_ready_while_its_database_is_stopped(
    server: PostgresServer, database: str, tmp_path: Path
) -> None:
    store = FleetStore(FleetDatabase(database, timeout=0.5), Folder(tmp_path))
    store.beat("one", "worker", "offline", ["flux-2-pro"])
    state = ServerState(Accounts(store=store), lambda: 0.0)
    asked = ServerRequest("GET", "/readyz", "http://fluxwerk.test", {}, {}, b"")
    ok = {"accepting": "ok", "database": "ok", "storage": "ok", "workers": "ok"}
    assert json.loads(ready(state, asked).body)["checks"] == ok
    server.stop("immediate")
    try:
        answer = ready(state, asked)
    finally:
        server.start()
    told = json.loads(answer.body)["checks"]
    assert (answer.status, told["database"], told["storage"]) == (503, "unavailable", "ok")
    until = time.monotonic() + 60
    while json.loads(ready(state, asked).body)["checks"]["database"] != "ok":
        assert time.monotonic() < until, "each question waits for a connection"
    store.close()


def test_a_commit_that_waits_too_long_for_a_lock_has_not_happened(database: str) -> None:
    """A commit that gives notices waits for others that do; a trigger that waits for a lock stands for them."""
    hasty, other = PostgresDatabase(database), PostgresDatabase(database)
    with hasty.write() as transaction:
        for statement in LATE:
            transaction.run(statement)

    def write_while_another_has_the_lock() -> None:
        with other.write() as holding, hasty.write() as transaction:
            holding.all("select pg_advisory_xact_lock(1)")
            transaction.run("set local lock_timeout = 50")
            transaction.run("insert into late values (1)")

    with pytest.raises(DatabaseError, match="lock timeout") as caught:
        write_while_another_has_the_lock()
    assert not isinstance(caught.value, UnknownCommitError)
    assert hasty.ask("select number from late") == []
    hasty.close()
    other.close()


LATE = (
    "create table late (number integer)",
    """
    create function wait_for_a_lock() returns trigger language plpgsql as
    $$ begin perform pg_advisory_xact_lock(1); return null; end $$
    """,
    """
    create constraint trigger late after insert on late deferrable initially deferred
    for each row execute function wait_for_a_lock()
    """,
)
