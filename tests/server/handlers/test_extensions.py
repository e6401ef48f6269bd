"""What the server answers beyond the live API, with engines that do what a test needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

import httpx2
import pytest
from PIL import Image

from fluxwerk.engines import FullAbilities, Health, Order, OrderEndedError, RenderProgress, Report
from fluxwerk.engines.codec import encode
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.engines.threads import ThreadedEngine, live
from fluxwerk.errors import Fault
from fluxwerk.server.app import build
from fluxwerk.server.router import Router
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from fluxwerk.testing.face_to_face import BASE, FaceToFace, blank
from fluxwerk.types import HttpRequest, Response
from support.asking import ask as requested
from support.asking import json_of, kept, post

KEY = {"x-key": "a-key-for-tests"}
FOX = {"prompt": "a fox", "width": 64, "height": 64, "output_format": "png"}
JPEG = encode(Image.new("RGB", (8, 4)), "jpeg")


class Puppet(FullAbilities):
    """A live engine that does what the test tells it to, one order after another."""

    name = "puppet"

    def __init__(self) -> None:
        self.report: Report = lambda _: None
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = False
        self.is_open = False

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        self.is_open = True
        yield
        self.is_open = False

    async def paint(self, order: Order, report: Report) -> bytes:
        self.report = report
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return blank(order.width, order.height)

    def faults(self, order: Order) -> list[Fault]:
        return [Fault("seed", order.seed, "must not be 13", "take 12")] if order.seed == 13 else []

    def facts(self, model) -> Mapping[str, object] | None:
        return {"honoured": ["prompt"], "licence": "MIT"} if model.name == "flux-2-pro" else None

    def health(self) -> Health:
        return Health("loading", serving=False, details={"left": 3})


@asynccontextmanager
async def serving(
    puppet: Puppet, accounts: Accounts | None = None
) -> AsyncGenerator[tuple[httpx2.AsyncClient, ServerState]]:
    service = ServerState(accounts or Accounts(), lambda: 0.0, engine=puppet.name, abilities=puppet)
    app = build(service, puppet)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test", headers=KEY) as client:
            yield client, service
    assert not puppet.is_open


def test_a_poll_tells_progress_and_shows_a_preview() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with serving(puppet) as (client, _):
            task = (await client.post("/v1/flux-2-pro", json=FOX)).json()
            await puppet.begun.wait()
            fresh = (await client.get(task["polling_url"])).json()
            assert (fresh["status"], fresh["progress"], fresh["preview"]) == ("Pending", None, None)
            puppet.report(RenderProgress(0.25, JPEG))
            poll = (await client.get(task["polling_url"])).json()
            assert (poll["status"], poll["progress"]) == ("Pending", 0.25)
            assert poll["preview"]["image"].startswith("data:image/jpeg;base64,")
            assert (poll["preview"]["width"], poll["preview"]["height"]) == (8, 4)

    asyncio.run(scene())


def test_a_cancelled_task_returns_its_credits_and_stops_the_engine() -> None:
    """A cancelled task ends at once gives its credits back and stops the engine."""

    async def scene() -> None:
        puppet = Puppet()
        async with serving(puppet, Accounts(credit=Decimal(10))) as (client, _):
            task = (await client.post("/v1/flux-2-pro", json=FOX)).json()
            await puppet.begun.wait()
            assert (await client.get("/v1/credits")).json()["credits"] == 7
            answer = (await client.delete(f"/v1/tasks/{task['id']}")).json()
            assert (answer["status"], answer["cancelled"]) == ("Error", True)
            assert answer["details"] == {"error": "cancelled", "message": "cancelled by its owner"}
            assert (await client.get("/v1/credits")).json()["credits"] == 10
            again = (await client.delete(f"/v1/tasks/{task['id']}")).json()
            assert (again["status"], again["cancelled"], again["was"]) == ("Error", False, "ended")
            assert (await client.get("/v1/credits")).json()["credits"] == 10
        assert puppet.cancelled

    asyncio.run(scene())


async def ended(client: httpx2.AsyncClient, task: dict) -> dict:
    """Poll until the task has ended: in process a request gives nobody else a turn."""
    while (body := (await client.get(task["polling_url"])).json())["status"] == "Pending":  # noqa: ASYNC110
        await asyncio.sleep(0)
    return body


def test_an_engine_that_gives_up_by_itself_ends_the_task() -> None:
    class Tired(Puppet):
        async def paint(self, *_: object) -> bytes:
            self.begun.set()
            raise asyncio.CancelledError

    async def scene() -> None:
        puppet = Tired()
        async with serving(puppet, Accounts(credit=Decimal(10))) as (client, _):
            task = (await client.post("/v1/flux-2-pro", json=FOX)).json()
            assert (await ended(client, task))["status"] == "Error"
            assert (await client.get("/v1/credits")).json()["credits"] == 10

    asyncio.run(scene())


@pytest.mark.parametrize(("paid", "left"), [(True, 7), (False, 10)])
def test_an_engine_ends_an_order_with_a_word_of_its_own(paid, left) -> None:
    class Strict(Puppet):
        async def paint(self, *_: object) -> bytes:
            self.begun.set()
            raise OrderEndedError("Content Moderated", {"Moderation Reasons": ["Blood"]}, paid=paid)

    async def scene() -> None:
        puppet = Strict()
        async with serving(puppet, Accounts(credit=Decimal(10))) as (client, _):
            task = (await client.post("/v1/flux-2-pro", json=FOX)).json()
            body = await ended(client, task)
            assert (body["status"], body["details"]) == ("Content Moderated", {"Moderation Reasons": ["Blood"]})
            assert (await client.get("/v1/credits")).json()["credits"] == left

    asyncio.run(scene())


def test_an_image_is_named_after_its_real_format() -> None:
    class Other(Puppet):
        async def paint(self, order: Order, *_: object) -> bytes:
            self.begun.set()
            return OfflineEngine().render(replace(order, output_format="webp"))

    async def scene() -> None:
        puppet = Other()
        async with serving(puppet, Accounts()) as (client, _):
            task = (await client.post("/v1/flux-2-pro", json=FOX)).json()
            while (body := (await client.get(task["polling_url"])).json())["status"] != "Ready":  # noqa: ASYNC110
                await asyncio.sleep(0)  # in process a request gives nobody else a turn
            assert "/sample.webp?" in body["result"]["sample"]
            answer = await client.get(body["result"]["sample"])
            assert answer.headers["content-type"] == "image/webp"

    asyncio.run(scene())


def test_nobody_cancels_what_is_anothers_or_has_ended() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with serving(puppet) as (client, _):
            task = (await client.post("/v1/flux-2-pro", json=FOX)).json()
            where = f"/v1/tasks/{task['id']}"
            stranger = await client.delete(where, headers={"x-key": "another-key"})
            assert (stranger.status_code, stranger.json()["detail"]) == (404, "Task not found")
            assert (await client.delete("/v1/tasks/nothing")).status_code == 404
            assert (await client.delete(where, headers={"x-key": ""})).status_code == 403
            puppet.go.set()
            while (await client.get(task["polling_url"])).json()["status"] != "Ready":  # noqa: ASYNC110
                await asyncio.sleep(0)  # in process a request gives nobody else a turn
            late = (await client.delete(where)).json()
            assert (late["status"], late["cancelled"], late["was"]) == ("Ready", False, "ended")

    asyncio.run(scene())


def test_what_the_engine_cannot_honour_is_a_422_that_names_the_field() -> None:
    async def scene() -> None:
        async with serving(Puppet()) as (client, service):
            answer = await client.post("/v1/flux-2-pro", json={**FOX, "seed": 13})
            assert answer.status_code == 422
            (entry,) = answer.json()["detail"]
            assert (entry["loc"], entry["msg"]) == (["body", "seed"], "must not be 13 (take 12)")
            assert not kept(service)

    asyncio.run(scene())


def test_the_openapi_holds_only_what_the_engine_serves() -> None:
    """The list and the openapi hold what the engine serves and nothing else."""

    async def scene() -> None:
        async with serving(Puppet()) as (client, _):
            listed = (await client.get("/v1/models")).json()
            assert listed["engine"] == "puppet"
            (model,) = listed["models"]
            assert (model["name"], model["path"], model["licence"]) == ("flux-2-pro", "/v1/flux-2-pro", "MIT")
            paths = (await client.get("/openapi.json")).json()["paths"]
            assert "/v1/flux-2-pro" in paths
            assert "/v1/flux-2-max" not in paths
            assert {"/v1/models", "/healthz", "/v1/tasks/{id}"} <= set(paths)

    asyncio.run(scene())


def test_health_is_503_until_the_engine_serves() -> None:
    async def scene() -> None:
        async with serving(Puppet()) as (client, _):
            answer = await client.get("/healthz")
            assert (answer.status_code, answer.json()) == (503, {"status": "loading", "engine": "puppet", "left": 3})

    asyncio.run(scene())


@pytest.mark.parametrize(("path", "method"), [("/v1/models", "POST"), ("/v1/tasks/x", "POST")])
def test_another_method_is_refused(path: str, method: str) -> None:
    steps = Router(ServerState(Accounts(), lambda: 0.0)).answer(HttpRequest(method, f"http://fluxwerk.test{path}"))
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value.status in (404, 405)


def ask(face: FaceToFace, path: str) -> dict:
    return json.loads(face.send(HttpRequest("GET", f"http://fluxwerk.test{path}")).body)


def test_a_simple_engine_is_ready_and_serves_the_whole_catalogue(face_to_face: FaceToFace) -> None:
    assert ask(face_to_face, "/healthz")["status"] == "ready"
    names = [model["name"] for model in ask(face_to_face, "/v1/models")["models"]]
    assert "flux-2-pro" in names
    assert len(names) == len(set(names))


def test_a_closing_server_accepts_nothing_and_still_answers_polls(face_to_face: FaceToFace) -> None:
    task = face_to_face.submit("a fox")
    face_to_face.state.close()
    refused = face_to_face.send(
        HttpRequest("POST", "http://fluxwerk.test/v1/flux-2-pro", b'{"prompt":"x"}', keyed=True)
    )
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert ask(face_to_face, "/healthz")["status"] == "closing"
    assert face_to_face.wait(task).word == "Ready"


def test_a_server_is_quiet_when_nothing_is_left_to_collect() -> None:
    """A server is quiet when nothing runs and nothing waits to be collected."""
    face = FaceToFace(seconds=5.0)
    tasks, now = face.state.tasks, face.clock.now
    assert tasks.is_quiet(now(), 10)
    task = face.submit("a fox")
    assert not tasks.is_quiet(now(), 10)
    status = face.wait(task)
    assert not tasks.is_quiet(now(), 10)
    assert tasks.is_quiet(now() + 11, 10)
    face.download(status)
    assert tasks.is_quiet(now(), 10)


def test_a_simple_engine_becomes_live_and_a_live_one_stays() -> None:
    puppet = Puppet()
    assert live(puppet) is puppet
    threads = live(OfflineEngine(), 1)
    assert isinstance(threads, ThreadedEngine)

    async def scene() -> bytes:
        async with threads.open():
            return await threads.paint(Order("flux-2-pro", "x", 1, 64, 64), lambda _: None)

    assert asyncio.run(scene()) == OfflineEngine().render(Order("flux-2-pro", "x", 1, 64, 64))


def tasks(of: FaceToFace, query: str = "", key: str = "key") -> list[dict]:
    return json_of(requested(of, "GET", f"/v1/tasks{query}", key=key))["tasks"]


def test_tasks_are_listed_newest_first_and_only_ones_own() -> None:
    of = FaceToFace(seconds=5)
    first, second = (json_of(post(of, {"prompt": word}))["id"] for word in ("a", "b"))
    post(of, {"prompt": "c"}, key="other")
    assert [row["id"] for row in tasks(of)] == [second, first]
    assert len(tasks(of, key="other")) == 1
    assert {row["status"] for row in tasks(of)} == {"Pending"}
    assert {row["stage"] for row in tasks(of)} == {"running"}


def test_a_list_is_bounded_and_chosen_by_status() -> None:
    of = FaceToFace()
    for _ in range(3):
        post(of, {"prompt": "x"})
    post(of, {"prompt": "fluxwerk:error"})
    answer = json_of(requested(of, "GET", "/v1/tasks?limit=2"))
    assert (len(answer["tasks"]), answer["more"]) == (2, True)
    assert len(tasks(of, "?status=Error")) == 1
    assert len(tasks(of, "?status=Ready&limit=1000")) == 3


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1001", "", "\uff11", "9" * 5000])
def test_a_limit_that_is_none_is_refused(limit) -> None:
    assert requested(FaceToFace(), "GET", f"/v1/tasks?limit={limit}").status == 422


def test_a_task_shows_what_it_was_and_how_it_ended() -> None:
    of = FaceToFace(seconds=5)
    identity = json_of(post(of, {"prompt": "x"}))["id"]
    of.clock.sleep(5)
    row = json_of(requested(of, "GET", f"/v1/tasks/{identity}"))
    assert (row["status"], row["stage"], row["cost"], row["model"]) == ("Ready", "ended", 3, "flux-2-pro")
    assert (row["ended"] - row["accepted"], row["webhook"]) == (5, None)
    assert requested(of, "GET", f"/v1/tasks/{identity}", key="other").status == 404
    assert requested(of, "GET", f"/v1/tasks/{identity}", key=None).status == 403


def test_a_task_that_waits_is_cancelled_and_its_credits_come_back() -> None:
    of = FaceToFace(accounts=Accounts(credit=Decimal(10)))
    identity = json_of(post(of, {"prompt": "fluxwerk:pending-forever"}))["id"]
    answer = json_of(requested(of, "DELETE", f"/v1/tasks/{identity}"))
    assert (answer["cancelled"], answer["was"], answer["status"], answer["cost"]) == (True, "queued", "Error", 0)
    assert json_of(requested(of, "GET", "/v1/credits")) == {"credits": 10}


def test_a_task_whose_image_is_held_back_is_cancelled_for_good() -> None:
    of = FaceToFace(seconds=5, accounts=Accounts(credit=Decimal(10)))
    submitted = json_of(post(of, {"prompt": "x"}))
    answer = json_of(requested(of, "DELETE", f"/v1/tasks/{submitted['id']}"))
    assert (answer["cancelled"], answer["was"]) == (True, "running")
    of.clock.sleep(6)
    assert json_of(requested(of, "GET", submitted["polling_url"]))["status"] == "Error"
    assert json_of(requested(of, "GET", "/v1/credits")) == {"credits": 10}
    assert requested(of, "DELETE", f"/v1/tasks/{submitted['id']}").status == 200
    assert json_of(requested(of, "GET", "/v1/credits")) == {"credits": 10}


def test_a_cancelled_task_gives_its_slot_back() -> None:
    of = FaceToFace(seconds=60)
    ids = [json_of(post(of, {"prompt": "x"}))["id"] for _ in range(24)]
    assert post(of, {"prompt": "x"}).status == 429
    requested(of, "DELETE", f"/v1/tasks/{ids[3]}")
    assert post(of, {"prompt": "x"}).status == 200


def test_an_engine_that_finishes_what_was_cancelled_changes_nothing() -> None:
    of = FaceToFace()
    identity = json_of(post(of, {"prompt": "fluxwerk:pending-forever"}))["id"]
    job = kept(of.state)[identity]
    requested(of, "DELETE", f"/v1/tasks/{identity}")
    of.state.finish(job, b"picture")
    of.state.fail(job, "too late")
    job = kept(of.state)[identity]
    assert (job.word, job.details["error"], job.image) == ("Error", "cancelled", None)


@pytest.mark.parametrize(
    ("body", "cost", "size"),
    [
        ({"model": "flux-2-pro"}, 3, (1024, 1024)),
        ({"model": "flux-2-pro", "width": 1920, "height": 1080}, 4.5, (1920, 1072)),
        ({"model": "/v1/flux-2-max", "inputs": [[1024, 1024]]}, 10, (1024, 1024)),
        ({"model": "flux-kontext", "aspect_ratio": "16:9", "prompt": "x"}, 4, (1392, 752)),
        ({"model": "expand", "inputs": [[300, 256]], "left": 10}, 5, (310, 256)),
        ({"model": "flux-3-image", "resolution": "2k"}, 10, (2048, 2048)),
        ({"model": "flux-3-image-klein", "width": 1200, "height": 1100}, 1.4, (1200, 1088)),
        ({"model": "erase", "inputs": [[2048, 1024]]}, 3.4, (2048, 1024)),
        ({"model": "deblur", "inputs": [[512, 512]]}, None, (512, 512)),
    ],
)
def test_a_price_is_told_without_a_key_and_without_a_task(body, cost, size) -> None:
    of = FaceToFace()
    answer = json_of(requested(of, "POST", "/v1/price", body, key=None))
    assert (answer["cost"], (answer["width"], answer["height"])) == (cost, size)
    assert answer["estimate"] is True
    assert not kept(of.state)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "flux-9"}, "model"),
        ({}, "model"),
        ({"model": "flux-2-pro", "width": 1}, "width"),
        ({"model": "flux-2-pro", "inputs": [[0, 1]]}, "inputs"),
        ({"model": "flux-kontext", "aspect_ratio": "99:1"}, "aspect_ratio"),
        ({"model": "flux-2-pro", "inputs": [[64, 64]] * 11}, "inputs"),
    ],
)
def test_a_price_that_cannot_be_told_names_the_field(body, field) -> None:
    answer = requested(FaceToFace(), "POST", "/v1/price", body)
    assert (answer.status, json_of(answer)["detail"][0]["loc"][1]) == (422, field)


def test_the_price_of_what_is_never_made_is_refused() -> None:
    answer = requested(FaceToFace(), "POST", "/v1/price", {"model": "flux-2-pro", "width": 4096, "height": 4096})
    assert (answer.status, "4194304 pixels" in json_of(answer)["message"]) == (422, True)


def test_the_price_of_no_json_is_refused() -> None:
    assert requested(FaceToFace(), "POST", "/v1/price", b"{").status == 422


def once(of: FaceToFace, body: object, name: str = "order-1", key: str = "key") -> Response:
    return requested(of, "POST", "/v1/flux-2-pro", body, key, **{"idempotency-key": name})


def test_the_same_key_and_body_is_the_same_task_and_is_paid_once() -> None:
    of = FaceToFace(accounts=Accounts(credit=Decimal(10)), keeps_keys=True)
    first, again = once(of, {"prompt": "x"}), once(of, {"prompt": "x"})
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert json_of(requested(of, "GET", "/v1/credits")) == {"credits": 7}


@pytest.mark.parametrize("path", ["/v1/credits", "/v1/get_result?id=none", "/v1/models", "/nowhere"])
def test_every_answer_says_for_how_long_keys_are_kept(path) -> None:
    of = FaceToFace(accounts=Accounts(keep=60.0), keeps_keys=True)
    assert requested(of, "GET", path).headers["x-fluxwerk-idempotency"] == "60"


def test_a_server_that_plays_the_live_service_ignores_the_key_and_promises_nothing() -> None:
    of = FaceToFace()
    first, again = once(of, {"prompt": "x"}), once(of, {"prompt": "x"})
    assert json_of(first)["id"] != json_of(again)["id"]
    assert "x-fluxwerk-idempotency" not in again.headers


def test_a_server_that_closes_still_names_the_task_that_it_took() -> None:
    of = FaceToFace(keeps_keys=True)
    first = once(of, {"prompt": "x"})
    of.state.close()
    assert once(of, {"prompt": "x"}).body == first.body
    assert once(of, {"prompt": "y"}, "order-2").status == 503


def test_the_same_key_with_another_body_is_refused() -> None:
    of = FaceToFace(keeps_keys=True)
    once(of, {"prompt": "x"})
    answer = once(of, {"prompt": "y"})
    assert (answer.status, json_of(answer)["detail"][0]["type"]) == (422, "idempotency_key_reused")
    assert len(kept(of.state)) == 1


def test_a_refused_submit_does_not_use_up_its_idempotency_key() -> None:
    """An idempotency key is the accounts own and a refused submit does not use it up."""
    of = FaceToFace(keeps_keys=True)
    assert once(of, {}).status == 422
    assert once(of, {"prompt": "x"}).status == 200
    assert once(of, {"prompt": "y"}, key="other").status == 200


def test_an_idempotency_key_is_free_again_when_its_task_is_forgotten() -> None:
    of = FaceToFace(keeps_keys=True)
    first = json_of(once(of, {"prompt": "x"}))["id"]
    of.clock.sleep(3601)
    assert json_of(once(of, {"prompt": "y"}))["id"] != first


def test_a_submit_that_is_still_being_read_makes_its_twin_wait() -> None:
    of = FaceToFace(keeps_keys=True)
    headers = {"x-key": "key", "idempotency-key": "order-1"}
    body = b'{"prompt":"x","input_image":"http://host.test/x"}'
    reading = of.router.answer(HttpRequest("POST", BASE + "/v1/flux-2-pro", body, headers=headers))
    next(reading)
    twin = once(of, json.loads(body))
    assert (twin.status, twin.headers["retry-after"]) == (409, "1")
    reading.close()
    assert once(of, {"prompt": "x"}).status == 200


@pytest.mark.parametrize("name", ["", "x" * 256, "tab\t"])
def test_a_strange_idempotency_key_is_refused(name) -> None:
    answer = once(FaceToFace(keeps_keys=True), {"prompt": "x"}, name)
    assert (answer.status, json_of(answer)["detail"][0]["loc"]) == (422, ["header", "Idempotency-Key"])


def test_a_task_that_ended_twice_is_forgotten_once() -> None:
    of = FaceToFace(seconds=5)
    identity = json_of(post(of, {"prompt": "x"}))["id"]
    requested(of, "DELETE", f"/v1/tasks/{identity}")
    of.clock.sleep(10_000)
    assert tasks(of) == []
    assert kept(of.state) == {}
