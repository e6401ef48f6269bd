"""Tasks that are booked together on PostgreSQL, and questions that are asked together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from fluxwerk import Task, get_model
from fluxwerk.catalog.rows import Model
from fluxwerk.drive import AsyncSend
from fluxwerk.engines import FullAbilities, Order
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.engines.threads import live
from fluxwerk.errors import Fault, StorageError
from fluxwerk.ledger.database import Statement
from fluxwerk.server.driving import FlowDriver
from fluxwerk.server.fetch import Guard
from fluxwerk.server.router import Router
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.booking import Booking
from fluxwerk.server.state.fleet import FleetDatabase, FleetStore
from fluxwerk.server.state.outgoing import OutgoingWebhook
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.workers import BackgroundWorkers
from fluxwerk.storage import Folder
from fluxwerk.types import HttpRequest, Json, Response

PRO = "flux-2-pro"


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[FleetStore]:
    opened = FleetStore(FleetDatabase(database), Folder(tmp_path))
    yield opened
    opened.close()


def booking(accounts: Accounts, name: str, key: str = "key", model: str = PRO) -> Booking:
    account = accounts.account(key)
    order = Order(model, "a fox of 100 %", 0, 64, 64)
    task = Task(name, f"http://fluxwerk.test/{name}", model, Decimal("1.4"))
    job = TaskRecord(task, account.id, get_model(model), order, accepted=0.0, folder=f"folder {name}")
    return Booking(job, account)


async def unreachable(*_: object) -> Response:
    raise AssertionError


def answers(state: ServerState, requests: list[HttpRequest], send: AsyncSend = unreachable) -> list[Response]:
    """Answer requests that arrive at one moment."""
    driver, router = FlowDriver(blocks=True), Router(state)

    async def run() -> list[Response]:
        return await asyncio.gather(*(driver.drive(router.begin(one), send, together=True) for one in requests))

    return asyncio.run(run())


def submit(number: int, key: str) -> HttpRequest:
    body = json.dumps({"prompt": f"fox {number}", "width": 64, "height": 64}).encode()
    return HttpRequest("POST", f"http://fluxwerk.test/v1/{PRO}", body, headers={"x-key": key})


def poll(submitted: Response, **headers: str) -> HttpRequest:
    return HttpRequest("GET", json.loads(submitted.body)["polling_url"], headers=headers)


def serving(store: FleetStore, **how) -> ServerState:
    state = ServerState(Accounts(store=store, **how), lambda: 1000.0)
    store.beat(state.process, "worker", "offline", [PRO])
    return state


def test_tasks_that_are_booked_together_have_their_jobs(store: FleetStore) -> None:
    accounts = Accounts(store=store)
    wanted = [booking(accounts, f"{number}", key) for number, key in enumerate(["a", "b", "a"])]
    wanted[0].job.webhook = OutgoingWebhook("http://a.test/", "secret")
    slots = accounts.tasks.accept_all(wanted)
    assert [one.busy for one in slots] == [1, 1, 2]
    jobs = store.database.ask(
        """select task.id, job.args, job.queue_name, job.priority = task.priority as is_alike
        from task join procrastinate_jobs job on job.id = task.job order by task.id"""
    )
    assert [dict(job) for job in jobs] == [
        {"id": name, "args": {"identity": name}, "queue_name": PRO, "is_alike": True} for name in "012"
    ]
    assert accounts.tasks.find("0", 1.0).webhook.secret == "secret"


def test_submits_that_arrive_together_are_each_answered_and_booked_once(store: FleetStore) -> None:
    state = serving(store)
    made = answers(state, [submit(number, f"key-{number % 3}") for number in range(30)])
    assert [one.status for one in made] == [200] * 30
    assert len({json.loads(one.body)["id"] for one in made}) == 30
    assert len(state.tasks.all(1000.0)) == 30
    assert store.database.ask("select sum(tasks) as tasks from spend")[0]["tasks"] == 30


def test_submits_that_arrive_together_take_exactly_the_credits(store: FleetStore) -> None:
    state = serving(store, credit=Decimal(30))
    made = answers(state, [submit(number, "key") for number in range(20)])
    assert sorted(one.status for one in made) == [200] * 10 + [402] * 10
    assert state.accounts.account("key").credits == 0


def test_submits_that_arrive_together_take_exactly_the_slots(store: FleetStore) -> None:
    state = serving(store)
    made = answers(state, [submit(number, "key") for number in range(40)])
    assert sorted(one.status for one in made) == [200] * 24 + [429] * 16


def test_tasks_beyond_the_slots_wait_though_they_arrive_together(store: FleetStore) -> None:
    state = serving(store, queue=100)
    made = answers(state, [submit(number, "key") for number in range(40)])
    assert [one.status for one in made] == [200] * 40
    told = [json.loads(one.body) for one in answers(state, [poll(one) for one in made])]
    assert [one["status"] for one in told] == ["Pending"] * 40
    assert sorted(one["details"]["position"] for one in told if one["details"]) == list(range(1, 17))


def test_polls_that_arrive_together_are_each_answered_for_their_task(store: FleetStore) -> None:
    state = serving(store)
    made = answers(state, [submit(number, f"key-{number}") for number in range(5)])
    polls = [poll(one, **{"x-key": f"key-{number}"}) for number, one in enumerate(made)]
    told = answers(state, [*polls, HttpRequest("GET", "http://fluxwerk.test/v1/get_result?id=a%00b")])
    assert [json.loads(one.body)["id"] for one in told[:5]] == [json.loads(one.body)["id"] for one in made]
    assert [one.headers["x-ratelimit-remaining"] for one in told[:5]] == ["23"] * 5
    assert json.loads(told[5].body)["status"] == "Task not found"


def test_a_server_has_announced_its_models_before_it_answers(store: FleetStore) -> None:
    state = ServerState(Accounts(store=store), lambda: 1000.0)
    workers = BackgroundWorkers(state, live(OfflineEngine()), Guard())

    async def scene() -> bool:
        async with workers.open():
            # Nothing was awaited since, so no loop of theirs has run.
            return PRO in store.served()

    assert asyncio.run(scene())


def test_a_server_whose_database_is_away_is_not_quiet(database: str, tmp_path: Path) -> None:
    store = FleetStore(FleetDatabase(database), Folder(tmp_path))
    state = ServerState(Accounts(store=store), lambda: 1000.0)
    assert state.is_quiet(1.0)
    store.close()
    assert not state.is_quiet(1.0)


def test_what_only_other_workers_render_is_for_them_to_judge(store: FleetStore) -> None:
    class OneModel(FullAbilities):
        def facts(self, model: Model) -> dict[str, Json] | None:
            return {} if model.name == "flux-2-klein-4b" else None

        def faults(self, order: Order) -> list[Fault]:
            return [Fault("model", order.model, "has no weights here")]

    state = ServerState(Accounts(store=store), lambda: 1000.0, abilities=OneModel())
    other, own = booking(state.accounts, "1").job, booking(state.accounts, "2", model="flux-2-klein-4b").job
    assert state.find_faults(other) == []
    assert [fault.field for fault in state.find_faults(own)] == ["model"]


def test_who_waits_for_a_locked_account_makes_nobody_else_wait(store: FleetStore) -> None:
    accounts = Accounts(store=store)
    accounts.tasks.accept(*booking(accounts, "0", "locked"))
    both = [booking(accounts, "1", "free"), booking(accounts, "2", "locked")]
    with ThreadPoolExecutor(1) as other, store.database.write() as transaction:
        identity = accounts.account("locked").id
        transaction.run("update account set waiting = waiting where id = :id", id=identity)
        assert other.submit(accounts.tasks.accept_all, both).result(5) is None
        assert other.submit(accounts.tasks.accept, *both[0]).result(5).busy == 1


def test_a_connection_that_died_in_the_pool_is_not_noticed_by_questions(store: FleetStore) -> None:
    kill = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
    with closing(FleetDatabase(store.url)) as other:
        other.ask(f"{kill} and datname = current_database()")
    asked = store.database.ask_together([Statement("select 1 as one"), Statement("select :two as two", {"two": 2})])
    assert [[dict(row) for row in rows] for rows in asked] == [[{"one": 1}], [{"two": 2}]]


def test_a_question_that_cannot_be_answered_fails_those_that_were_asked_with_it(store: FleetStore) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        store.database.ask_together([Statement("select 1 as one"), Statement("select nothing from nowhere")])
    assert store.database.ask("select 1 as one")[0]["one"] == 1


def test_a_question_that_fails_while_others_become_known_to_the_database_harms_none_of_them(store: FleetStore) -> None:
    divide = "select 1 / :number as share"
    one, none = Statement(divide, {"number": 1}), Statement(divide, {"number": 0})
    for _ in range(4):
        # The driver prepares a statement once it has seen it often enough, which may be in what fails.
        with pytest.raises(StorageError):
            store.database.ask_together([none, one, one])
        assert store.database.ask(one.sql, **one.values)[0]["share"] == 1
        assert store.database.ask_together([one, one])[1][0]["share"] == 1


def test_questions_join_the_transaction_that_is_open(store: FleetStore) -> None:
    with store.database.write() as transaction:
        transaction.run("insert into fact (name, value) values ('x', 'y')")
        asked = store.database.ask_together([Statement("select value from fact where name = 'x'")])
    assert bytes(asked[0][0]["value"]) == b"y"
