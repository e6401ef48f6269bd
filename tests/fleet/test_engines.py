"""Which engine a fleet names: the one that made an image, and those of the workers that live."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from fluxwerk import Task, get_model
from fluxwerk.engines import FullAbilities, Order
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.engines.threads import live
from fluxwerk.server.fetch import Guard
from fluxwerk.server.handlers import extensions, health, poll, tasks
from fluxwerk.server.inquiry import result_of
from fluxwerk.server.page import operations, visits
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.fleet import FleetDatabase, FleetStore
from fluxwerk.server.state.outgoing import OutgoingWebhook
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.workers import BackgroundWorkers
from fluxwerk.storage import Folder
from fluxwerk.testing.face_to_face import blank
from fluxwerk.types import HttpRequest, Response
from support.asking import PRO
from support.process import process

PATIENCE = 20.0
SMALL = {"prompt": "x", "width": 64, "height": 64}


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[FleetStore]:
    with closing(FleetStore(FleetDatabase(database), Folder(tmp_path))) as opened:
        yield opened


def state_of(store: FleetStore, engine: str | None = None, **settings: object) -> ServerState:
    """Return the state as one process has it: without an engine that of a server with --workers 0."""
    return ServerState(Accounts(store=store), time.time, engine=engine, **settings)


def request(identity: str = "") -> ServerRequest:
    return ServerRequest("GET", "/", "http://127.0.0.1:8000", {"id": identity}, {"x-key": "key"}, b"")


def submit(state: ServerState, name: str, *, seed: int | None = None) -> TaskRecord:
    account = state.accounts.account("key")
    order = Order("flux-2-pro", "a fox", 7, 64, 64, id=name, asked={} if seed is None else {"seed": seed})
    task = Task(name, f"http://127.0.0.1:8000/v1/get_result?id={name}", "flux-2-pro")
    job = TaskRecord(task, account.id, get_model("flux-2-pro"), order, accepted=state.clock(), folder=f"f{name}")
    job.webhook = OutgoingWebhook("https://shop.example/hook", None)
    result_of(state.accept(job, account, None, result_of(state.find_answer(job, None))))
    return job


def beat(store: FleetStore, **workers: str) -> None:
    """Let workers give a sign of life, each with its engine, and see it at once."""
    for name, engine in workers.items():
        store.beat(name, "worker", engine, ["flux-2-pro"])
    store._served = 0.0, {}


def body_of(response: Response) -> dict:
    return json.loads(response.body)


def result_shown(state: ServerState, identity: str) -> dict:
    return body_of(result_of(poll.poll(state, request(identity))))["result"]


def webhook_of(state: ServerState) -> dict:
    """Return the result in the webhook that this process would deliver."""
    [job] = state.take_webhooks(1)
    call = next(state.delivery(job))
    assert isinstance(call.request, HttpRequest)
    return json.loads(call.request.body)["result"]


def test_a_server_that_renders_nothing_names_the_engine_of_the_worker_in_polls_lists_and_webhooks(
    store: FleetStore,
) -> None:
    server, worker = state_of(store), state_of(store, "upstream")
    submit(server, "1")
    assert worker.finish(worker.begin("1"), blank(64, 64))
    assert result_shown(server, "1")["engine"] == "upstream"
    assert result_shown(state_of(store, "offline"), "1")["engine"] == "upstream"
    [row] = body_of(tasks.listed(server, request()))["tasks"]
    assert row["engine"] == "upstream"
    assert webhook_of(server)["engine"] == "upstream"


def test_a_cached_image_keeps_its_engine_and_answers_only_while_that_engine_works(store: FleetStore) -> None:
    server, worker = state_of(store, caches=True), state_of(store, "offline")
    beat(store, one="offline")
    submit(server, "1", seed=7)
    assert worker.finish(worker.begin("1"), blank(64, 64))
    submit(server, "2", seed=7)
    assert (result_shown(server, "2")["engine"], result_shown(server, "2")["cached"]) == ("offline", True)

    store.leave("one")
    beat(store, two="upstream")
    assert submit(server, "3", seed=7).word == "Pending"


def test_session_numbers_and_health_name_the_engine_of_the_live_workers(store: FleetStore) -> None:
    server = state_of(store)

    def named() -> list[str | None]:
        answers = (
            visits.show(server, request()),
            health.health(server, request()),
            extensions.models(server, request()),
        )
        ops = body_of(operations.show(server, request(), "127.0.0.1"))["engine"]
        return [*(body_of(answer)["engine"] for answer in answers), ops["name"]]

    answer = health.health(server, request())
    assert (answer.status, body_of(answer)) == (503, {"status": "no_worker", "engine": None})
    assert named() == [None] * 4
    beat(store, one="diffusers")
    assert health.health(server, request()).status == 200
    assert named() == ["diffusers"] * 4
    beat(store, two="offline")
    # Two engines at once have no one name; each image has its own.
    assert named() == [None] * 4


def test_the_list_of_models_marks_what_live_workers_serve_and_with_which_engine(store: FleetStore) -> None:
    beat(store, one="diffusers")
    # The server's own engine, if it has one, serves less than the fleet.
    for server in (state_of(store), state_of(store, "diffusers", abilities=Nothing())):
        listed = {row["name"]: row for row in body_of(extensions.models(server, request()))["models"]}
        served = {name: row["engine"] for name, row in listed.items() if row["served"]}
        assert served == {"flux-2-pro": "diffusers"}
        assert listed["flux-2-max"]["engine"] is None


class Nothing(FullAbilities):
    """An engine that serves no model."""

    def facts(self, _: object) -> None:
        return None


def test_a_worker_that_is_ending_announces_no_models_while_it_finishes_what_it_has(store: FleetStore) -> None:
    state, engine = state_of(store, "offline"), live(OfflineEngine(), 1)

    async def until(*, served: bool) -> None:
        end = time.monotonic() + PATIENCE
        while bool(await asyncio.to_thread(store.served)) is not served:
            assert time.monotonic() < end, f"the models are {'not ' if served else 'still '}announced"
            await asyncio.sleep(0.05)  # a worker gives a sign of life once a second

    async def scene() -> None:
        async with BackgroundWorkers(state, engine, Guard()).open():
            await until(served=True)
            state.close()
            await until(served=False)
            rows = store.database.ask("select id from process")
            assert [row["id"] for row in rows] == [state.process]

    asyncio.run(scene())


@pytest.mark.parametrize(("options", "status"), [((), "Pending"), (("--magic",), "Error")])
def test_no_prompt_of_a_fleet_chooses_its_ending_unless_the_operator_says_so(
    database: str, store: FleetStore, tmp_path: Path, options: tuple[str, ...], status: str
) -> None:
    beat(store, one="upstream")
    place = ("--database", database, "--storage", tmp_path, "--workers", 0)
    with process(*place, *options) as (base, _):
        body = {**SMALL, "prompt": "fluxwerk:error"}
        task = httpx2.post(base + PRO, json=body, headers={"x-key": "key"}).json()
        assert httpx2.get(task["polling_url"]).json()["status"] == status
