"""The loops: pauses, deadlines and losses, blocking and on asyncio."""

from __future__ import annotations

import asyncio
import random

import pytest

from fluxwerk.drive import WALL, complete, drive, drive_async, lift, take
from fluxwerk.errors import ConnectionFailedError, FluxwerkError, NoResponseError, TaskTimeoutError
from fluxwerk.testing.clock import PretendClock
from fluxwerk.types import Call, HttpRequest, Response

HTTP = HttpRequest("GET", "https://api.bfl.ai/")
OK = Response(200)


class Watch:
    """A flow that makes calls after these pauses, with what it was sent, thrown and whether it was closed."""

    def __init__(self, *pauses):
        self.pauses = pauses
        self.heard = []
        self.closed = False

    def flow(self):
        try:
            for pause in self.pauses:
                try:
                    self.heard.append((yield Call(HTTP, pause)))
                except FluxwerkError as error:
                    self.heard.append(type(error))
            return len(self.heard)
        finally:
            self.closed = True


class Patient(Watch):
    """A flow whose pauses may be cut short, until it is told that time is up."""

    def flow(self):
        while True:
            try:
                self.heard.append((yield Call(HTTP, self.pauses[0], early=True)))
            except TaskTimeoutError:
                return len(self.heard)


class Line:
    """A send seam that notes when it was used and with which budget; what it answers may be a loss."""

    def __init__(self, *answers, clock=None, takes=0.0):
        self.answers = list(answers)
        self.clock = clock or PretendClock(0.0)
        self.takes = takes
        self.sent = []

    def send(self, _request, budget):
        self.sent.append((self.clock.now(), budget))
        self.clock.sleep(self.takes)
        answer = self.answers.pop(0) if self.answers else OK
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def send_async(self, request, budget):
        return self.send(request, budget)


def run(watch, line, deadline=None):
    return drive(watch.flow(), line.send, deadline, line.clock)


def run_async(watch, line, deadline=None):
    return asyncio.run(drive_async(watch.flow(), line.send_async, deadline, line.clock))


BOTH = pytest.mark.parametrize("run", [run, run_async], ids=["blocking", "asyncio"])


@BOTH
def test_a_flow_is_driven_to_its_result_and_closed(run):
    watch, answers = Watch(0, 0, 0), [Response(200), Response(404), Response(500)]

    assert run(watch, Line(*answers)) == 3
    assert watch.heard == answers
    assert watch.closed


@BOTH
def test_a_flow_without_any_call_has_a_result_too(run):
    assert run(Watch(), Line()) == 0


@BOTH
@pytest.mark.parametrize("loss", [ConnectionFailedError("away"), NoResponseError("lost")])
def test_a_loss_is_thrown_into_the_flow_which_may_go_on(run, loss):
    watch = Watch(0, 0)

    assert run(watch, Line(loss)) == 2
    assert watch.heard == [type(loss), OK]


@BOTH
def test_what_is_no_loss_is_not_for_the_flow_and_closes_it(run):
    watch = Watch(0, 0)

    with pytest.raises(ZeroDivisionError):
        run(watch, Line(ZeroDivisionError()))

    assert watch.heard == []
    assert watch.closed


@BOTH
def test_what_a_flow_raises_reaches_the_caller(run):
    def broken():
        yield Call(HTTP)
        raise ConnectionFailedError("no more")

    watch = Watch()
    watch.flow = broken

    with pytest.raises(ConnectionFailedError, match="no more"):
        run(watch, Line())


def test_a_call_is_not_made_before_its_moment():
    line = Line(takes=1.0)

    run(Watch(0, 5, 2.5), line)

    assert [moment for moment, _ in line.sent] == [0, 6, 9.5]


def test_a_call_is_told_how_long_it_may_take():
    line = Line(takes=1.0)

    run(Watch(0, 5), line, deadline=10)

    assert line.sent == [(0, 10), (6, 4)]


@BOTH
def test_without_a_deadline_a_call_may_take_for_ever(run):
    line = Line()

    run(Watch(0), line)

    assert line.sent == [(0, None)]


@BOTH
def test_a_call_that_cannot_begin_before_the_deadline_is_not_made(run):
    watch, line = Watch(10, 11), Line()

    run(watch, line, deadline=10)

    assert watch.heard == [TaskTimeoutError, TaskTimeoutError]
    assert line.sent == []
    assert line.clock.now() == 0


@BOTH
def test_a_pause_leaves_time_for_last_polls_before_the_deadline(run):
    """A pause that may be cut short leaves time for last looks before the deadline."""
    line = Line()

    run(Patient(30), line, deadline=100)

    assert line.sent == [(30, 70), (60, 40), (90, 10), (99, 1), (99.5, 0.5), (99.75, 0.25), (99.875, 0.125)]


@BOTH
def test_even_a_deadline_before_the_first_pause_has_ended_allows_a_look(run):
    line = Line(takes=0.5)

    run(Patient(3), line, deadline=0.8)

    assert line.sent == [(0.4, 0.4)]


def test_the_deadline_passes_for_the_whole_flow():
    watch = Watch(4, 4, 4)

    run(watch, Line(), deadline=10)

    assert watch.heard == [OK, OK, TaskTimeoutError]


def test_the_sender_is_told_how_many_seconds_are_left():
    watch, told = Watch(4, 4), []

    def send(request, budget):
        told.append(budget)
        return OK

    drive(watch.flow(), send, deadline=10, clock=(clock := PretendClock(0)))

    assert told == [6, 2]
    assert clock.now() == 8


def test_a_pause_lets_the_loop_go_on():
    watch, line, order = Watch(0.001), Line(), []

    async def beside():
        driving = asyncio.create_task(drive_async(watch.flow(), line.send_async, None, line.clock))
        await asyncio.sleep(0)
        order.append(list(watch.heard))
        await driving
        order.append(list(watch.heard))

    asyncio.run(beside())

    assert order == [[], [OK]]


def test_a_drive_that_is_cancelled_closes_its_flow():
    watch = Watch(0)

    async def never(request, budget):
        await asyncio.Event().wait()

    async def cancel():
        driving = asyncio.create_task(drive_async(watch.flow(), never))
        await asyncio.sleep(0)
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving

    asyncio.run(cancel())

    assert watch.closed
    assert watch.heard == []


def test_the_wall_clock_lets_time_pass():
    before = WALL.now()

    WALL.sleep(0.001)

    assert WALL.now() >= before + 0.001


def test_jitter_only_lengthens_a_pause_and_by_no_more_than_its_share():
    stretched = [WALL.stretch(Call(HTTP, 8.0, 0.25)) for _ in range(200)]

    assert all(8 <= pause <= 10 for pause in stretched)
    assert len(set(stretched)) > 1
    assert WALL.stretch(Call(HTTP, 8.0)) == 8


def test_jitter_is_not_drawn_from_the_generator_that_the_program_shares():
    before = random.getstate()

    pauses = {WALL.stretch(Call(HTTP, 1.0, 0.5)) for _ in range(5)}

    assert len(pauses) > 1
    assert random.getstate() == before


def test_a_reply_is_handed_in_and_a_loss_is_thrown():
    def steps():
        try:
            got = yield "first"
        except NoResponseError as lost:
            got = lost
        yield got

    reply, lost = Response(200), NoResponseError("gone")
    for came in (reply, lost):
        running = steps()
        assert take(running, None) == "first"
        assert take(running, came) is came


def test_blocking_work_completes_without_an_event_loop():
    async def twice():
        return await lift(len)("two") * 2

    assert complete(twice()) == 6


def test_what_lifted_work_raises_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        complete(lift(lambda: 1 / 0)())


def test_a_coroutine_that_needs_an_event_loop_is_refused_and_closed():
    closed = []

    async def waits():
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(RuntimeError, match="runs none"):
        complete(waits())
    assert closed == [True]
