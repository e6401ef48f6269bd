"""A wakeup shortens waits: from any thread, on any loop, and never without a notification."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from fluxwerk.client.wakeup import Wakeup

# Longer than any test may take: whoever is not woken fails by being killed.
AGES = 1000.0


def awaiting(wakeup: Wakeup, task_id: str) -> None:
    """Come back when somebody waits for the task."""
    while task_id not in wakeup._waiting:
        threading.Event().wait(0.001)


def test_a_ring_ends_a_wait_in_another_thread():
    wakeup, began = Wakeup(), time.monotonic()
    waiter = threading.Thread(target=wakeup.wait, args=("a", AGES))
    waiter.start()
    awaiting(wakeup, "a")

    wakeup.notify("a")

    waiter.join()
    assert time.monotonic() - began < AGES / 2


def test_a_ring_that_came_before_the_wait_is_remembered_once():
    wakeup = Wakeup()
    wakeup.notify("a")
    wakeup.notify("a")
    wakeup.wait("a", AGES)

    wakeup.wait("a", 0.0)
    assert repr(wakeup) == "Wakeup(0 tasks waited for, 0 notifications remembered)"


def test_a_ring_is_for_one_task_alone():
    wakeup = Wakeup()
    wakeup.notify("b")
    wakeup.wait("a", 0.001)
    assert repr(wakeup) == "Wakeup(0 tasks waited for, 1 notifications remembered)"


def test_everybody_who_waits_for_a_task_is_woken():
    wakeup = Wakeup()
    waiters = [threading.Thread(target=wakeup.wait, args=("a", AGES)) for _ in range(5)]
    for waiter in waiters:
        waiter.start()
    while len(wakeup._waiting.get("a", ())) < len(waiters):
        threading.Event().wait(0.001)

    wakeup.notify("a")

    for waiter in waiters:
        waiter.join()
    assert repr(wakeup) == "Wakeup(0 tasks waited for, 0 notifications remembered)"


def test_a_wait_without_a_notification_ends_by_itself():
    """A wait that is never notified ends by itself and leaves nothing behind."""
    wakeup = Wakeup()
    wakeup.wait("a", 0.001)
    asyncio.run(wakeup.wait_async("a", 0.001))
    assert repr(wakeup) == "Wakeup(0 tasks waited for, 0 notifications remembered)"


def test_a_ring_on_the_loop_ends_a_wait_on_the_loop():
    wakeup = Wakeup()

    async def run() -> None:
        waiter = asyncio.create_task(wakeup.wait_async("a", AGES))
        await asyncio.sleep(0)
        wakeup.notify("a")
        await waiter
        wakeup.notify("a")
        await wakeup.wait_async("a", AGES)

    asyncio.run(run())
    assert repr(wakeup) == "Wakeup(0 tasks waited for, 0 notifications remembered)"


def test_a_ring_from_a_thread_ends_a_wait_on_the_loop():
    wakeup = Wakeup()

    def ring() -> None:
        awaiting(wakeup, "a")
        wakeup.notify("a")

    ringer = threading.Thread(target=ring)
    ringer.start()
    asyncio.run(wakeup.wait_async("a", AGES))
    ringer.join()
    assert repr(wakeup) == "Wakeup(0 tasks waited for, 0 notifications remembered)"


def test_a_cancelled_wait_is_forgotten():
    wakeup = Wakeup()

    async def run() -> None:
        waiter = asyncio.create_task(wakeup.wait_async("a", AGES))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

    asyncio.run(run())
    assert repr(wakeup) == "Wakeup(0 tasks waited for, 0 notifications remembered)"


def test_a_ring_after_the_end_of_the_loop_harms_nobody():
    wakeup, loop = Wakeup(), asyncio.new_event_loop()
    waiter = loop.create_task(wakeup.wait_async("a", AGES))
    loop.run_until_complete(asyncio.sleep(0))
    woken = list(wakeup._waiting["a"])
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiter)
    loop.close()
    wakeup._waiting["a"] = woken

    wakeup.notify("a")


def test_rings_that_nobody_hears_do_not_fill_the_memory():
    wakeup = Wakeup(remembered=100)
    for number in range(1000):
        wakeup.notify(str(number))
    assert repr(wakeup) == "Wakeup(0 tasks waited for, 100 notifications remembered)"
    wakeup.wait("999", AGES)
    wakeup.wait("0", 0.0)


def test_a_waiter_that_gives_up_leaves_the_others_listening():
    wakeup = Wakeup()
    patient = threading.Thread(target=wakeup.wait, args=("a", 60.0))
    patient.start()
    while "1 tasks waited for" not in repr(wakeup):
        pass
    wakeup.wait("a", 0.001)
    wakeup.notify("a")
    patient.join(30)
    assert not patient.is_alive()
