"""One drive of a flow as a client sees it: what may end its pauses."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fluxwerk import catalog
from fluxwerk.client.many import Many
from fluxwerk.client.session import Session
from fluxwerk.client.slots import ClientSlots
from fluxwerk.client.wakeup import Wakeup
from fluxwerk.drive import WALL
from fluxwerk.drive import run as run_steps
from fluxwerk.drive import run_async as run_steps_async
from fluxwerk.errors import ConnectionFailedError, InDoubtError, NoResponseError
from fluxwerk.testing import FaceToFace, PretendClock
from fluxwerk.types import Call, HttpRequest, Response, Task, ignore_event

TASK = Task("abc", "https://api.bfl.ai/v1/get_result?id=abc")
HTTP = HttpRequest("GET", TASK.polling_url)
AGES = 60.0


class Hooks:
    """Where webhooks come in."""

    def __init__(self, wakeup):
        self.wakeup = wakeup
        self.options = {}

    def expect(self, task):
        pass


def rung():
    wakeup = Wakeup()
    wakeup.notify(TASK.id)
    return Hooks(wakeup)


def flow(early):
    yield Call(HTTP, AGES, early=early)


def session(clock):
    return Session("https://api.bfl.ai", clock, ClientSlots(clock.now), ignore_event, rung(), TASK)


def blocking(early, clock):
    with session(clock) as one:
        run_steps(one.steps(flow(early), None), lambda *_: Response(200), clock)


def on_asyncio(early, clock):
    async def send(*_):
        return Response(200)

    with session(clock) as one:
        asyncio.run(run_steps_async(one.steps(flow(early), None), send, clock))


BOTH = pytest.mark.parametrize("run", [blocking, on_asyncio])


@BOTH
def test_a_webhook_ends_a_pause_that_nobody_asked_for(run):
    began = WALL.now()

    run(early=True, clock=WALL)

    assert WALL.now() - began < AGES / 2


@BOTH
def test_a_webhook_does_not_end_a_pause_that_the_service_asked_for(run):
    clock = PretendClock(0)

    run(early=False, clock=clock)

    assert clock.now() == AGES


@pytest.mark.parametrize("seconds", [1, 17, 19.4, 59])
def test_a_lost_webhook_changes_nothing_near_the_deadline(seconds):
    face = FaceToFace(seconds=seconds)
    face.webhook = Hooks(Wakeup())

    assert face.generate("a fox", timeout=seconds + 0.6).width


@pytest.mark.parametrize("ago", [11, 500])
def test_a_task_that_is_ready_is_collected_however_little_time_there_is(ago):
    face = FaceToFace()
    task = face.submit("a fox")
    face.clock.sleep(ago)
    face.webhook = Hooks(Wakeup())

    assert face.download(task, timeout=0.5).width


def test_webhooks_that_never_come_cost_their_pause_only_three_times():
    face = FaceToFace(seconds=1.0)
    face.webhook = Hooks(Wakeup())
    took = []
    for _ in range(8):
        began = face.clock.now()
        face.generate("a fox")
        took.append(face.clock.now() - began)

    assert all(seconds >= 3.0 for seconds in took[:3])
    assert max(took[3:]) < 1.5


def test_webhooks_are_waited_for_where_the_model_sends_them():
    for model in catalog.list_models().values():
        assert catalog.takes_webhooks(model.name) is ("webhook_url" in model.options)
    assert catalog.takes_webhooks("newer-than-the-catalogue")


def test_an_observer_that_fails_changes_neither_slots_nor_images(caplog):
    face = FaceToFace(slots=1, seconds=2)

    def fail(event):
        raise RuntimeError(event.kind)

    face.on_event = fail
    first = face.submit("a fox", width=64, height=64)
    assert face.slots.age(first) is not None
    assert face.download(first).width == 64
    assert face.generate("an owl", width=64, height=64).width == 64
    assert "on_event raised an exception at 'submitted'" in caplog.text


class Lossy:
    """A server that keeps keys and whose answers to the first submits are lost, after it has taken them."""

    def __init__(self, losses, *, keeps_keys=True, **settings):
        self.losses = losses
        self.pair = FaceToFace(intercept=self.intercept, keeps_keys=keeps_keys, **settings)

    def intercept(self, http, response):
        if http.method == "POST" and self.losses:
            loss = self.losses.pop(0)
            if isinstance(loss, Exception):
                raise loss
            return loss
        return response

    @property
    def submits(self):
        return [http for http in self.pair.journal if http.method == "POST"]

    @property
    def tasks(self):
        return len(self.pair.state.tasks.all(self.pair.clock.now()))


LOST = NoResponseError("cut off")
PAGE = Response(502, {}, b"<html>bad gateway</html>")


@pytest.mark.parametrize("loss", [LOST, PAGE, Response(200, {}, b"{}"), Response(503)])
def test_an_image_whose_submit_was_lost_is_made_and_paid_once(loss):
    lossy = Lossy([loss, loss])

    image = lossy.pair.generate("a fox", width=64, height=64)

    assert (image.width, lossy.tasks, len(lossy.submits)) == (64, 1, 3)


def test_where_keys_are_ignored_a_lost_submit_is_sent_once():
    lossy = Lossy([LOST], keeps_keys=False)

    with pytest.raises(InDoubtError):
        lossy.pair.generate("a fox", width=64, height=64)

    assert len(lossy.submits) == 1


def test_a_submit_that_is_repeated_needs_no_second_slot():
    lossy = Lossy([LOST, PAGE, ConnectionFailedError("restarting")], slots=1)

    assert lossy.pair.generate("a fox", width=64, height=64).width == 64
    assert lossy.pair.generate("a bear", width=64, height=64).width == 64
    assert lossy.tasks == 2


def test_a_doubt_that_finds_no_slot_again_is_told_as_a_doubt():
    """A 503 gives the slot back, and the deadline passes before there is another."""
    lossy = Lossy([Response(503)] * 99)

    with pytest.raises(InDoubtError):
        lossy.pair.generate("a fox", width=64, height=64, timeout=3)


def test_a_client_that_is_closed_meanwhile_tells_the_doubt():
    closed = threading.Event()
    many = Many(1, closed)

    def close(http, response):
        if http.method == "POST":
            closed.set()
            raise LOST
        return response

    pair = FaceToFace(intercept=close, keeps_keys=True)
    with pytest.raises(InDoubtError), pair._session(switch=many) as one:
        run_steps(one.steps(pair._generating(one, "a fox", {}), pair._deadline(60.0)), pair.send, pair.clock)
