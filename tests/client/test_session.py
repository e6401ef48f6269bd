"""One drive of a flow as a client sees it: what may end its pauses."""

from __future__ import annotations

import asyncio

import pytest

from fluxwerk.client.session import Session
from fluxwerk.client.slots import ClientSlots
from fluxwerk.client.wakeup import Wakeup
from fluxwerk.drive import WALL, drive, drive_async
from fluxwerk.testing import FaceToFace, PretendClock
from fluxwerk.types import Call, HttpRequest, Response, Task, silence

TASK = Task("abc", "https://api.bfl.ai/v1/get_result?id=abc")
HTTP = HttpRequest("GET", TASK.polling_url)
AGES = 60.0


class Hooks:
    """Where webhooks come in."""

    def __init__(self, bell):
        self.bell = bell
        self.options = {}

    def expect(self, task):
        pass


class Silence(Wakeup):
    """A bell on a pretend clock that nobody rings."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def nap(self, task_id, seconds):
        self.clock.sleep(seconds)


def rung():
    bell = Wakeup()
    bell.ring(TASK.id)
    return Hooks(bell)


def flow(early):
    yield Call(HTTP, AGES, early=early)


def blocking(early, clock):
    with Session(clock, ClientSlots(clock.now), silence, rung(), TASK) as talk:
        drive(flow(early), lambda *_: Response(200), clock=talk.clock)


def on_asyncio(early, clock):
    async def send(*_):
        return Response(200)

    with Session(clock, ClientSlots(clock.now), silence, rung(), TASK) as talk:
        asyncio.run(drive_async(flow(early), send, clock=talk.clock))


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
    face.webhook = Hooks(Silence(face.clock))

    assert face.generate("a fox", timeout=seconds + 0.6).width


@pytest.mark.parametrize("ago", [11, 500])
def test_a_task_that_is_ready_is_collected_however_little_time_there_is(ago):
    face = FaceToFace()
    task = face.submit("a fox")
    face.clock.sleep(ago)
    face.webhook = Hooks(Silence(face.clock))

    assert face.download(task, timeout=0.5).width
