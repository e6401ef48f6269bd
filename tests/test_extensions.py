"""What the server answers beyond the live API, with engines that do what a test needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx2
import pytest
from PIL import Image

from fluxwerk.engines import Everything, Health, Order, Progress, Report
from fluxwerk.engines.offline import Offline
from fluxwerk.engines.picture import encode
from fluxwerk.engines.threads import Threads, live
from fluxwerk.errors import Fault
from fluxwerk.exchange import HttpRequest
from fluxwerk.server.app import build
from fluxwerk.server.books import Books
from fluxwerk.server.service import Service
from fluxwerk.testing.face import FaceToFace, blank

KEY = {"x-key": "a-key-for-tests"}
FOX = {"prompt": "a fox", "width": 64, "height": 64, "output_format": "png"}
JPEG = encode(Image.new("RGB", (8, 4)), "jpeg")


class Puppet(Everything):
    """A live engine that does what the test tells it to, one order after another."""

    name = "puppet"

    def __init__(self) -> None:
        self.report: Report = lambda _: None
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.finished = asyncio.Event()
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
        self.finished.set()
        return blank(order.width, order.height)

    def faults(self, order: Order) -> list[Fault]:
        return [Fault("seed", order.seed, "must not be 13", "take 12")] if order.seed == 13 else []

    def facts(self, model) -> Mapping[str, object] | None:
        return {"honoured": ["prompt"], "licence": "MIT"} if model.name == "flux-2-pro" else None

    def health(self) -> Health:
        return Health("loading", serving=False, details={"left": 3})


async def turns() -> None:
    """Let the event loop hand on what has happened."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(puppet: Puppet, books: Books | None = None) -> AsyncGenerator[tuple[httpx2.AsyncClient, Service]]:
    service = Service(books or Books(), lambda: 0.0, engine=puppet.name, abilities=puppet)
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
            puppet.report(Progress(0.25, JPEG))
            poll = (await client.get(task["polling_url"])).json()
            assert (poll["status"], poll["progress"]) == ("Pending", 0.25)
            assert poll["preview"]["image"].startswith("data:image/jpeg;base64,")
            assert (poll["preview"]["width"], poll["preview"]["height"]) == (8, 4)

    asyncio.run(scene())


def test_a_cancelled_task_ends_at_once_gives_its_credits_back_and_stops_the_engine() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with serving(puppet, Books(credit=Decimal(10))) as (client, _):
            task = (await client.post("/v1/flux-2-pro", json=FOX)).json()
            await puppet.begun.wait()
            assert (await client.get("/v1/credits")).json()["credits"] == 7
            answer = (await client.post(f"/v1/cancel?id={task['id']}")).json()
            assert (answer["status"], answer["details"]) == ("Error", {"error": "cancelled by its owner"})
            assert (await client.get("/v1/credits")).json()["credits"] == 10
            await turns()
            assert puppet.cancelled
            again = (await client.post(f"/v1/cancel?id={task['id']}")).json()
            assert again["status"] == "Error"
            assert (await client.get("/v1/credits")).json()["credits"] == 10

    asyncio.run(scene())


def test_nobody_cancels_what_is_anothers_or_has_ended() -> None:
    async def scene() -> None:
        puppet = Puppet()
        async with serving(puppet) as (client, _):
            task = (await client.post("/v1/flux-2-pro", json=FOX)).json()
            where = f"/v1/cancel?id={task['id']}"
            stranger = await client.post(where, headers={"x-key": "another-key"})
            assert stranger.json()["status"] == "Task not found"
            assert (await client.post("/v1/cancel?id=nothing")).json()["status"] == "Task not found"
            assert (await client.post(where, headers={"x-key": ""})).status_code == 403
            puppet.go.set()
            await puppet.finished.wait()
            await turns()
            assert (await client.post(where)).json()["status"] == "Ready"

    asyncio.run(scene())


def test_what_the_engine_cannot_honour_is_a_422_that_names_the_field() -> None:
    async def scene() -> None:
        async with serving(Puppet()) as (client, service):
            answer = await client.post("/v1/flux-2-pro", json={**FOX, "seed": 13})
            assert answer.status_code == 422
            (entry,) = answer.json()["detail"]
            assert (entry["loc"], entry["msg"]) == (["body", "seed"], "must not be 13 (take 12)")
            assert not service.books.jobs

    asyncio.run(scene())


def test_the_list_and_the_openapi_hold_what_the_engine_serves_and_nothing_else() -> None:
    async def scene() -> None:
        async with serving(Puppet()) as (client, _):
            listed = (await client.get("/v1/models")).json()
            assert listed["engine"] == "puppet"
            (model,) = listed["models"]
            assert (model["name"], model["path"], model["licence"]) == ("flux-2-pro", "/v1/flux-2-pro", "MIT")
            paths = (await client.get("/openapi.json")).json()["paths"]
            assert "/v1/flux-2-pro" in paths
            assert "/v1/flux-2-max" not in paths
            assert {"/v1/models", "/healthz", "/v1/cancel"} <= set(paths)

    asyncio.run(scene())


def test_health_is_503_until_the_engine_serves() -> None:
    async def scene() -> None:
        async with serving(Puppet()) as (client, _):
            answer = await client.get("/healthz")
            assert (answer.status_code, answer.json()) == (503, {"status": "loading", "engine": "puppet", "left": 3})

    asyncio.run(scene())


@pytest.mark.parametrize(("path", "method"), [("/v1/models", "POST"), ("/v1/cancel", "GET")])
def test_another_method_is_refused(path: str, method: str) -> None:
    service = Service(Books(), lambda: 0.0)
    steps = service.answer(HttpRequest(method, f"http://fluxwerk.test{path}"))
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
    face_to_face.service.closing = True
    refused = face_to_face.send(
        HttpRequest("POST", "http://fluxwerk.test/v1/flux-2-pro", b'{"prompt":"x"}', keyed=True)
    )
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert ask(face_to_face, "/healthz")["status"] == "closing"
    assert face_to_face.wait(task).word == "Ready"


def test_a_server_is_quiet_when_nothing_runs_and_nothing_waits_to_be_collected() -> None:
    face = FaceToFace(seconds=5.0)
    books, now = face.service.books, face.clock.now
    assert books.is_quiet(now(), 10)
    task = face.submit("a fox")
    assert not books.is_quiet(now(), 10)
    status = face.wait(task)
    assert not books.is_quiet(now(), 10)
    assert books.is_quiet(now() + 11, 10)
    face.download(status)
    assert books.is_quiet(now(), 10)


def test_a_simple_engine_becomes_live_and_a_live_one_stays() -> None:
    puppet = Puppet()
    assert live(puppet) is puppet
    threads = live(Offline(), 1)
    assert isinstance(threads, Threads)

    async def scene() -> bytes:
        async with threads.open():
            return await threads.paint(Order("flux-2-pro", "x", 1, 64, 64), lambda _: None)

    assert asyncio.run(scene()) == Offline().render(Order("flux-2-pro", "x", 1, 64, 64))
