"""Slots: who may submit now, by the books alone; and what the clients make of it over real HTTP."""

import asyncio
import threading

import pytest

from fluxwerk import AsyncClient, Client, ConnectionFailedError, InvalidUsageError, RateLimitError, TaskTimeoutError
from fluxwerk.client.slots import LOOK_AROUND, ClientSlots
from fluxwerk.protocol import retry
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import FaceToFace, PretendClock, loopback
from fluxwerk.testing.face_to_face import blank
from fluxwerk.types import Outcome, Pool, Status, Task
from support.accounts import accepted

TWO = Pool("standard", 2)
OTHER = Pool("other", 1)


def task(name):
    return Task(name, f"https://api.bfl.ai/v1/get_result?id={name}")


@pytest.fixture
def clock():
    return PretendClock(0)


@pytest.fixture
def slots(clock):
    return ClientSlots(clock.now)


def nothing():
    pass


def test_as_many_seats_are_granted_as_the_pool_has_slots(slots):
    assert [slots.ask(TWO, nothing).granted for _ in range(3)] == [True, True, False]


def test_pools_do_not_share_their_slots(slots):
    assert [slots.ask(pool, nothing).granted for pool in (TWO, TWO, OTHER, OTHER)] == [True, True, True, False]


def test_the_number_of_the_catalogue_can_be_replaced(clock):
    wide = ClientSlots(clock.now, most=5)
    assert sum(wide.ask(TWO, nothing).granted for _ in range(9)) == 5


def test_seats_are_granted_in_the_order_of_asking_and_each_wakes_its_own(slots):
    woken = []
    first, second = slots.ask(TWO, nothing), slots.ask(TWO, nothing)
    for name in ("third", "fourth"):
        slots.ask(TWO, lambda name=name: woken.append(name))

    slots.give_back(second)
    assert woken == ["third"]
    slots.give_back(first)
    assert woken == ["third", "fourth"]


def test_a_seat_whose_event_loop_is_gone_goes_to_the_next_in_line(slots):
    gone = asyncio.new_event_loop()
    gone.close()
    held = slots.ask(OTHER, nothing)
    slots.ask(OTHER, lambda: gone.call_soon_threadsafe(nothing))
    next_in_line = slots.ask(OTHER, nothing)

    slots.give_back(held)

    assert next_in_line.granted


def test_a_slot_is_held_until_its_task_has_ended(slots):
    """A slot is held until the task has ended and not until nobody waits."""
    seats = [slots.ask(OTHER, nothing)]
    slots.hold(seats[0], task("a"))
    waiting = slots.ask(OTHER, nothing)

    slots.leave(task("a"))
    assert not waiting.granted

    slots.ended(task("a"))
    assert waiting.granted


def test_an_ending_told_twice_frees_one_slot(slots):
    seat = slots.ask(OTHER, nothing)
    slots.hold(seat, task("a"))
    slots.ended(task("a"))
    slots.ended(task("a"))
    assert [slots.ask(OTHER, nothing).granted for _ in range(2)] == [True, False]


def test_whoever_gives_up_waiting_leaves_the_queue(slots):
    held = slots.ask(OTHER, nothing)
    impatient, patient = slots.ask(OTHER, nothing), slots.ask(OTHER, nothing)
    slots.give_back(impatient)
    slots.give_back(held)
    assert (impatient.granted, patient.granted) == (False, True)


def test_tasks_without_a_waiter_are_named_in_turn(slots):
    for name in ("a", "b"):
        slots.hold(slots.ask(TWO, nothing), task(name))
    assert slots.unattended(TWO) is None
    slots.leave(task("a"))
    slots.leave(task("b"))
    assert [slots.unattended(TWO).id for _ in range(3)] == ["a", "b", "a"]
    assert slots.unattended(OTHER) is None


def seen(word, outcome):
    return Status(task("a"), word, outcome)


PENDING = seen("Pending", Outcome.RUNNING)
READY = seen("Ready", Outcome.READY)
UNKNOWN = seen("Task not found", Outcome.MISSING)


@pytest.mark.parametrize(
    ("age", "status", "keeps"),
    [
        (0, PENDING, True),
        (0, READY, False),
        (0, None, True),
        (0, seen("Error", Outcome.FAILED), False),
        (9.9, UNKNOWN, True),
        (10, UNKNOWN, False),
        (3599, PENDING, True),
        (3600, PENDING, False),
        (3599, None, True),
        (3600, None, False),
    ],
)
def test_a_poll_frees_the_slot_of_an_ended_or_unknown_task(slots, clock, age, status, keeps):
    """A look at a task frees its slot if it is over unknown or too old to be true."""
    slots.hold(slots.ask(OTHER, nothing), task("a"))
    slots.leave(task("a"))
    clock.sleep(age)
    slots.looked(task("a"), status)
    assert slots.ask(OTHER, nothing).granted is not keeps


def test_a_look_at_a_task_that_holds_no_slot_changes_nothing(slots):
    slots.looked(task("a"), READY)
    assert slots.ask(OTHER, nothing).granted


def test_a_cool_down_holds_everyone_and_then_lets_one_go_first(slots, clock):
    refused = slots.ask(TWO, nothing)
    slots.give_back(refused, cool=5)
    seats = [slots.ask(TWO, nothing) for _ in range(3)]
    assert not any(seat.granted for seat in seats)

    clock.sleep(5)
    slots.nudge(TWO)
    assert [seat.granted for seat in seats] == [True, False, False]

    slots.hold(seats[0], task("a"))
    assert [seat.granted for seat in seats] == [True, True, False]


def test_a_probe_that_is_refused_begins_the_cool_down_anew(slots, clock):
    slots.give_back(slots.ask(TWO, nothing), cool=5)
    first, second = slots.ask(TWO, nothing), slots.ask(TWO, nothing)
    clock.sleep(5)
    slots.nudge(TWO)
    slots.give_back(first, cool=5)
    assert not second.granted
    clock.sleep(5)
    slots.nudge(TWO)
    assert second.granted


def test_a_probe_that_is_lost_lets_the_next_one_try(slots, clock):
    slots.give_back(slots.ask(TWO, nothing), cool=1)
    first, second = slots.ask(TWO, nothing), slots.ask(TWO, nothing)
    clock.sleep(1)
    slots.nudge(TWO)
    slots.give_back(first)
    assert second.granted


def test_a_cool_down_lasts_at_most_what_a_refused_submit_would_wait_for(slots, clock):
    slots.give_back(slots.ask(TWO), cool=3600, asked=3600)
    waiting = slots.ask(TWO)
    assert slots.cool_down(TWO) == (retry.LONGEST_RETRY_AFTER, 3600)
    clock.sleep(retry.LONGEST_RETRY_AFTER)
    slots.nudge(TWO)
    assert waiting.granted
    assert slots.cool_down(TWO) is None


def test_a_waiting_claim_looks_again_at_the_first_of_three_moments(slots, clock):
    """A waiting claim looks again after a second, at the end of a cool-down or at its deadline."""
    held = [slots.ask(OTHER) for _ in range(1)]
    patient, hurried = slots.ask(OTHER), slots.ask(OTHER, until=0.25)
    assert (slots.next_timeout(patient), slots.next_timeout(hurried)) == (LOOK_AROUND, 0.25)
    slots.give_back(held[0], cool=0.125)
    assert (slots.next_timeout(patient), slots.next_timeout(hurried)) == (0.125, 0.125)
    clock.sleep(0.25)
    assert (slots.next_timeout(patient), slots.next_timeout(hurried)) == (LOOK_AROUND, None)


def test_a_cool_down_wakes_at_once_what_would_wait_for_it_in_vain(slots):
    woken = []
    refused = slots.ask(OTHER)
    slots.ask(OTHER, lambda: woken.append("patient"), until=100)
    slots.ask(OTHER, lambda: woken.append("hurried"), until=3)
    slots.give_back(refused, cool=5)
    assert woken == ["hurried"]


def test_a_claim_that_is_returned_twice_frees_one_slot(slots):
    claims = [slots.ask(TWO) for _ in range(2)]
    slots.give_back(claims[0])
    slots.give_back(claims[0])
    assert [slots.ask(TWO).granted for _ in range(2)] == [True, False]


def test_a_pause_of_an_hour_holds_others_back_for_two_minutes_and_says_so():
    hour = FaultRule(on="submit", do="status", status=429, retry_after=3600, nth=1)
    face = FaceToFace(trouble=[hour])
    with pytest.raises(RateLimitError):
        face.generate("a fox")
    began = face.clock.now()
    asked = r"asked for a pause until \d\d:\d\d:\d\d UTC\. The next submit leaves in 120 s"
    with pytest.raises(RateLimitError, match=asked) as caught:
        face.generate("a fox", timeout=60)
    assert face.clock.now() == began
    assert caught.value.retry_after == retry.LONGEST_RETRY_AFTER
    assert face.generate("a fox").cost == 3
    assert face.clock.now() - began == pytest.approx(retry.LONGEST_RETRY_AFTER, abs=1)


def submits(base):
    with Client("k", base_url=base) as client:
        yield client.submit
        yield client.submit


def submits_on_loop(base):
    client = AsyncClient("k", base_url=base)
    for _ in range(2):
        yield lambda prompt, **how: asyncio.run(client.submit(prompt, **how))


@pytest.mark.parametrize("kind", [submits, submits_on_loop])
def test_a_deadline_before_the_end_of_a_cool_down_is_refused_at_once(kind):
    """A caller whose deadline ends before the cool-down does is refused at once."""
    hour = FaultRule(on="submit", do="status", status=429, retry_after=3600, nth=1)
    with loopback(trouble=[hour]) as base:
        for submit, expected in zip(kind(base), ("429", "The next submit leaves in 1"), strict=True):
            with pytest.raises(RateLimitError, match=expected):
                submit("a fox", width=64, height=64, timeout=60)


class Crowd(Accounts):
    """Books that remember the largest number of tasks in flight, and refuse no one."""

    most = 0

    def has_slot(self, account, model, now):
        super().has_slot(account, model, now)
        self.most = max(self.most, self.tasks.slots(account.id, model.pool, now).busy + 1)
        return True


def test_threads_never_exceed_the_slots():
    """No number of threads puts more tasks in flight than there are slots."""
    books = Crowd()
    with loopback(accounts=books, pace=lambda _: 0.2) as base, Client("k", base_url=base) as client:
        made = list(client.generate_many([f"fox {n}" for n in range(20)], model="flux-kontext-max"))
    assert all(one.image for one in made)
    assert {one.request for one in made} == {f"fox {n}" for n in range(20)}
    assert books.most == 6


def test_coroutines_never_exceed_the_slots():
    """No number of coroutines puts more tasks in flight than there are slots."""
    books = Crowd()

    async def run(base):
        async with AsyncClient("k", base_url=base, slots=3) as client:
            prompts = [f"fox {n}" for n in range(9)]
            return [one async for one in client.generate_many(prompts, width=64, height=64)]

    with loopback(accounts=books, pace=lambda _: 0.1) as base:
        made = asyncio.run(run(base))
    assert all(one.image for one in made)
    assert books.most == 3


def test_one_failure_among_many_stops_no_other(fluxwerk_server):
    with Client("k", base_url=fluxwerk_server) as client:
        good = client.request("a fox", width=64, height=64)
        made = list(client.generate_many([good, "bad", good], width=33, height=64))
    assert sorted(type(one.error).__name__ for one in made) == ["InvalidUsageError", "NoneType", "NoneType"]
    assert all(one.request is good for one in made if one.image)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_one_prompt_where_many_are_asked_for_is_not_taken_letter_by_letter(kind):
    of = kind("k")
    with pytest.raises(InvalidUsageError, match=r"must be an iterable of prompts; got one string\. Use \[prompt\]\."):
        of.generate_many("a fox")
    with pytest.raises(InvalidUsageError, match=r"got one Request\. Use \[request\]\."):
        of.generate_many(of.request("a fox"))


@pytest.mark.parametrize("slots", [0, -1])
def test_a_client_without_any_slot_is_refused(slots):
    with pytest.raises(InvalidUsageError, match=f"slots = {slots}"):
        Client("k", slots=slots)


def test_whoever_finds_no_slot_in_time_is_told_that_nothing_was_sent():
    books = Accounts()
    with loopback(accounts=books, pace=lambda _: 60.0) as base, Client("k", base_url=base, slots=1) as client:
        client.submit("first", width=64, height=64)
        with pytest.raises(
            TaskTimeoutError, match=r"No slot became free in 0\.\d+ s\. .* 'standard': 1, .* Nothing was sent"
        ):
            client.submit("second", width=64, height=64, timeout=0.3)
    assert len(accepted(books)) == 1


def test_an_unattended_task_gives_its_slot_back_on_demand():
    """A task that nobody waits for gives its slot back when someone needs it."""
    with loopback(pace=lambda _: 0.3) as base, Client("k", base_url=base, slots=1) as client:
        client.submit("first", width=64, height=64)
        assert client.submit("second", width=64, height=64, timeout=20).id


def test_a_coroutine_that_needs_a_slot_looks_after_abandoned_tasks_too():
    async def run(base):
        async with AsyncClient("k", base_url=base, slots=1) as client:
            await client.submit("first", width=64, height=64)
            with pytest.raises(TaskTimeoutError, match="Nothing was sent"):
                await client.submit("second", width=64, height=64, timeout=0.05)
            return await client.submit("third", width=64, height=64, timeout=20)

    with loopback(pace=lambda _: 0.3) as base:
        assert asyncio.run(run(base)).id


def test_waiting_for_a_slot_can_be_cancelled_and_leaves_no_trace():
    async def run(base):
        async with AsyncClient("k", base_url=base, slots=1) as client:
            await client.submit("first", width=64, height=64)
            waiting = asyncio.create_task(client.submit("second", width=64, height=64))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            return await client.submit("third", width=64, height=64, timeout=20)

    with loopback(pace=lambda _: 0.1) as base:
        assert asyncio.run(run(base)).id


def test_after_a_refusal_all_waiting_submits_share_one_cool_down():
    refused = []

    class Full(Crowd):
        def has_slot(self, account, model, now):
            if len(accepted(self)) < 4 and len(refused) < 3:
                refused.append(threading.get_ident())
                return False
            return True

    with loopback(accounts=Full()) as base, Client("k", base_url=base, slots=1) as client:
        made = list(client.generate_many(["a", "b", "c", "d"], width=64, height=64))
    assert all(one.image for one in made)
    assert len(refused) == 3


def test_whoever_stops_listening_to_many_stops_buying():
    books = Accounts()
    with loopback(accounts=books, pace=lambda _: 0.1) as base:
        client = Client("k", base_url=base, slots=1, timeout=20)
        for _ in client.generate_many((f"fox {n}" for n in range(40)), width=64, height=64):
            break
        client.submit("the next one", width=64, height=64)
        client.close()
    assert len(accepted(books)) <= 4


def test_a_submit_that_never_left_keeps_no_slot():
    with Client("k", base_url="http://127.0.0.1:9", slots=1, timeout=1.2) as client:
        with pytest.raises((ConnectionFailedError, TaskTimeoutError)) as ended:
            client.generate("x", width=64, height=64)
        assert "No slot" not in str(ended.value)
        free = client.slots.ask(Pool("standard", 1), nothing)
        assert free.granted
        # Closing waits for who holds a slot.
        client.slots.give_back(free)


class Turning(AsyncClient):
    """Counts the turns of the event loop, and notes in which of them a submit leaves."""

    turns = 0

    def __init__(self, base):
        self.freed, self.left = [], []
        super().__init__("a-key", base_url=base, slots=1, on_event=self.hear)

    def hear(self, event):
        if event.kind == "ready":
            self.freed.append(self.turns)

    async def turn(self):
        while True:
            self.turns += 1
            await asyncio.sleep(0)

    async def send(self, request, budget=None):
        if request.pool:
            self.left.append(self.turns)
        return await super().send(request, budget)


def test_the_next_submit_leaves_two_loop_turns_after_the_poll():
    """The next submit leaves two turns of the loop after the poll that freed its slot."""

    async def main(base):
        async with Turning(base) as client:
            turning = asyncio.create_task(client.turn())
            assert [made.image async for made in client.generate_many(["a fox"] * 4, width=64, height=64)]
            turning.cancel()
            return client

    with loopback(pace=lambda _: 0.05) as base:
        client = asyncio.run(main(base))

    assert [left - freed <= 2 for freed, left in zip(client.freed, client.left[1:], strict=False)] == [True] * 3


class Holding(AsyncClient):
    """Fetches no image before the second submit has left."""

    def __init__(self, base):
        self.submits, self.second = 0, asyncio.Event()
        super().__init__("a-key", base_url=base, slots=1, timeout=20)

    async def send(self, request, budget=None):
        self.submits += bool(request.pool)
        if self.submits == 2:
            self.second.set()
        if not request.keyed:
            await self.second.wait()
        return await super().send(request, budget)


def test_a_download_holds_no_slot():
    async def main(base):
        async with Holding(base) as client:
            return [made.error async for made in client.generate_many(["a fox"] * 2, width=64, height=64)]

    with loopback() as base:
        assert asyncio.run(main(base)) == [None, None]


def test_the_body_of_a_request_is_made_before_there_is_a_slot_for_it(tmp_path):
    file = tmp_path / "fox.png"
    file.write_bytes(blank(64, 64))

    def gone(event):
        # The first has just taken the only slot; whoever read the file later would not find it.
        if event.kind == "submitted":
            file.unlink(missing_ok=True)

    async def main(base):
        async with AsyncClient("a-key", base_url=base, slots=1, on_event=gone) as client:
            return await asyncio.gather(*(client.generate("a fox", images=[file], seed=seed) for seed in (1, 2)))

    with loopback(pace=lambda _: 0.1) as base:
        assert len(asyncio.run(main(base))) == 2
