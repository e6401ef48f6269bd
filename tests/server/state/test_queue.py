"""Whose turn it is: fair between accounts, by priority within one, and never more in flight than there are slots."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import Task, get_model
from fluxwerk.engines import Order
from fluxwerk.server.faults.endings import CANCELLED
from fluxwerk.server.state import charges
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.application import Application
from fluxwerk.server.state.queue import SlotsTakenError
from fluxwerk.server.state.search import Search
from fluxwerk.server.state.task import TaskRecord

PLENTY = Decimal(10**9)


class Shop:
    """A server's tasks without a server: what is accepted, taken up and finished, at moments of the test's choice."""

    def __init__(self, queue: int = 100_000) -> None:
        self.accounts = Accounts(queue=queue)
        self.tasks = self.accounts.tasks
        self.now = 0.0
        self.number = 0

    def submit(self, who: str = "a", model: str = "flux-2-pro", slots: int | None = 2, **more: int) -> str:
        self.number += 1
        weight = more.pop("share", 1)
        account = Account(who, PLENTY, application=Application(who, who, slots=slots, priority=weight))
        name = f"{who}-{self.number}"
        order = Order(model, "", 0, 64, 64)
        task = Task(name, "", model, Decimal(1))
        job = TaskRecord(task, who, get_model(model), order, self.now, folder=name, **more)
        self.tasks.accept(job, account)
        return name

    def room(self, who: str) -> int:
        standing = self.accounts.applications.standing(who, self.now, "standard")
        return self.tasks.queue.room(standing.waiting)

    def take(self) -> TaskRecord | None:
        return self.tasks.claim("worker")

    def finish(self, job: TaskRecord) -> None:
        self.now += 1
        assert self.tasks.finish(job, f"{job.task.id}.png", 7, self.now, self.now)

    def work(self, count: int) -> list[str]:
        """Render one task after the other, and say in which order."""
        done = []
        for _ in range(count):
            job = self.take()
            if job is None:
                break
            done.append(job.task.id)
            self.finish(job)
        return done

    def spent(self, who: str) -> Decimal:
        return charges.spent_since(self.accounts.store.database, who, "total", self.now)

    def stage(self, name: str) -> str:
        return self.tasks.find(name, self.now).stage


def test_tasks_beyond_the_slots_wait_and_take_their_places_in_order():
    shop = Shop()
    names = [shop.submit() for _ in range(5)]
    assert [shop.stage(name) for name in names] == ["queued", "queued", "waiting", "waiting", "waiting"]
    places = [shop.tasks.queue.position(shop.tasks.find(name, 0.0)) for name in names[2:]]
    assert places == [1, 2, 3]
    assert shop.work(10) == names


def test_without_a_queue_a_task_beyond_the_slots_is_refused():
    shop = Shop(queue=0)
    shop.submit()
    shop.submit()
    with pytest.raises(SlotsTakenError):
        shop.submit()
    assert shop.spent("a") == 2


def test_a_queue_has_an_end():
    shop = Shop(queue=3)
    for _ in range(5):
        shop.submit()
    with pytest.raises(SlotsTakenError):
        shop.submit()
    shop.work(1)
    shop.submit()
    assert shop.room("a") == 0


def test_a_pool_of_its_own_has_slots_of_its_own():
    shop = Shop()
    for _ in range(3):
        shop.submit()
    assert shop.stage(shop.submit(model="flux-kontext-max")) == "queued"


def test_ten_thousand_tasks_of_one_delay_nobody_elses_first():
    shop = Shop()
    for _ in range(10_000):
        shop.submit("a", slots=24)
    running = shop.take()
    assert running.account == "a"
    late = shop.submit("b")
    assert shop.take().task.id == late


def test_a_key_that_was_idle_is_not_preferred_for_it():
    shop = Shop()
    for _ in range(50):
        shop.submit("a")
    shop.work(50)
    for _ in range(10):
        shop.submit("b")
        shop.submit("a")
    turns = [name[0] for name in shop.work(20)]
    assert Counter(turns[:10]) == Counter(a=5, b=5)


def test_priority_orders_the_tasks_of_one_key():
    shop = Shop()
    first = [shop.submit(slots=1) for _ in range(2)]
    urgent = shop.submit(slots=1, urgency=5)
    least = shop.submit(slots=1, urgency=-5)
    assert shop.work(9) == [first[0], urgent, first[1], least]


def test_an_application_with_a_higher_priority_gets_a_larger_share():
    shop = Shop()
    for _ in range(40):
        shop.submit("a", share=3)
        shop.submit("b")
    turns = Counter(name[0] for name in shop.work(40))
    assert 28 <= turns["a"] <= 32
    assert 8 <= turns["b"] <= 12


def test_a_task_that_is_cancelled_while_it_waits_leaves_its_place():
    shop = Shop(queue=2)
    names = [shop.submit() for _ in range(4)]
    assert shop.tasks.end(shop.tasks.find(names[2], 0.0), CANCELLED, 0.0, 0.0)
    assert shop.room("a") == 1
    assert shop.tasks.queue.position(shop.tasks.find(names[3], 0.0)) == 1
    assert shop.work(9) == [names[0], names[1], names[3]]
    assert shop.spent("a") == 3


def test_a_task_that_is_cancelled_gives_its_slot_to_the_next():
    shop = Shop()
    names = [shop.submit() for _ in range(3)]
    assert shop.tasks.end(shop.tasks.find(names[0], 0.0), CANCELLED, 0.0, 0.0)
    assert shop.stage(names[2]) == "queued"


def test_a_slot_that_is_held_back_is_free_when_time_has_passed():
    shop = Shop()
    names = [shop.submit(slots=1) for _ in range(2)]
    job = shop.take()
    assert shop.tasks.finish(job, "x.png", 7, 1.0, 5.0)
    assert shop.tasks.sweep(["standard"], 4.0) == 0
    assert shop.tasks.sweep(["standard"], 5.0) == 1
    assert shop.stage(names[1]) == "queued"


def test_the_pause_between_starts_is_measured_by_the_latest_endings():
    shop = Shop()
    for _ in range(30):
        shop.submit()
    assert shop.tasks.queue.pause("a", "standard", shop.now) is None
    shop.work(10)
    assert shop.tasks.queue.pause("a", "standard", shop.now) == pytest.approx(0.9)


moves = st.lists(st.sampled_from(["a", "b", "c", "take", "finish", "cancel"]), max_size=120)


@given(moves, st.integers(1, 3), st.integers(0, 4))
def test_whatever_happens_slots_and_queue_keep_their_bounds(moves, slots, longest):
    shop, running, accepted = Shop(queue=longest), [], []
    for move in moves:
        if move == "take":
            running += [job for job in [shop.take()] if job]
        elif move == "finish":
            if running:
                shop.finish(running.pop(0))
        elif move == "cancel":
            if accepted:
                job = shop.tasks.find(accepted.pop(0), shop.now)
                shop.tasks.end(job, CANCELLED, shop.now, shop.now)
                running = [one for one in running if one.task.id != job.task.id]
        else:
            try:
                accepted.append(shop.submit(move, slots=slots))
            except SlotsTakenError:
                assert shop.room(move) == 0
        for who in "abc":
            held = shop.tasks.slots(who, "standard", shop.now).busy
            waiting = [job for job in shop.tasks.search(who, Search(), shop.now, 1000) if job.stage == "waiting"]
            assert held <= slots
            assert len(waiting) <= longest
            assert shop.room(who) == longest - len(waiting)
            assert held == slots or not waiting


def test_a_task_whose_image_is_only_fetched_leaves_its_slot_to_the_next_once():
    shop = Shop(queue=9)
    names = [shop.submit(slots=1) for _ in range(3)]
    first = shop.take()
    assert shop.take() is None
    assert shop.tasks.vacate(first, shop.now)
    assert not shop.tasks.vacate(first, shop.now)
    second = shop.take()
    assert second.task.id == names[1]
    shop.finish(first)
    assert shop.take() is None, "the slot is given on once"
    shop.finish(second)
    assert shop.take().task.id == names[2]


def test_a_task_that_gave_its_slot_away_does_not_hold_it_again_until_it_is_shown():
    shop = Shop(queue=9)
    shop.submit(slots=1)
    shop.submit(slots=1)
    first = shop.take()
    shop.tasks.vacate(first, shop.now)
    assert shop.tasks.finish(first, "first.png", 7, shop.now, shop.now + 30)
    assert shop.tasks.slots("a", "standard", shop.now).busy == 1


def test_a_server_does_not_end_before_what_is_queued_again():
    shop = Shop()
    shop.submit()
    shop.tasks.vacate(shop.take(), shop.now)
    shop.tasks.resume()
    assert not shop.tasks.is_quiet(shop.now, 0)


def test_a_server_does_not_end_while_an_image_is_fetched():
    shop = Shop()
    shop.submit()
    job = shop.take()
    shop.tasks.vacate(job, shop.now)
    assert not shop.tasks.is_quiet(shop.now, 0)


def test_a_worker_that_lost_a_task_leaves_its_slot_alone():
    shop = Shop(queue=9)
    shop.submit(slots=1)
    shop.submit(slots=1)
    lost = shop.take()
    shop.tasks.begin(lost.task.id, "another worker")
    assert not shop.tasks.vacate(lost, shop.now)
    assert shop.take() is None


def test_an_answer_from_storage_does_not_wait_for_a_slot():
    shop = Shop(queue=1)
    shop.submit(slots=1)
    waiting = shop.tasks.find(shop.submit(slots=1), 0.0)
    assert shop.tasks.finish(waiting, "x.png", 7, 0.0, 0.0)
    assert shop.room("a") == 1
    assert shop.work(5) == ["a-1"]
