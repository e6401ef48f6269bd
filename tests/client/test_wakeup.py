"""A wakeup shortens waits: from any thread, on any loop, and never without a notification."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from fluxwerk.client.wakeup import Wakeup

# Longer than any test may take, and longer than a test waits for a thread.
AGES, PATIENCE = 1000.0, 30.0


class ObservedWakeup(Wakeup):
    """Counts the waits that have begun, so that a test can notify after them without looking again and again."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = threading.Semaphore(0)

    @contextmanager
    def _listening(self, task_id: str, wake: Callable[[], object]) -> Generator[bool]:
        with super()._listening(task_id, wake) as early:
            self._begun.release()
            yield early

    def await_waits(self, number: int = 1) -> None:
        """Return when this number of further waits has begun."""
        for _ in range(number):
            assert self._begun.acquire(timeout=PATIENCE)


def waiting_threads(wakeup: Wakeup, number: int = 1) -> list[threading.Thread]:
    """Start threads that wait for the task "a"."""
    threads = [threading.Thread(target=wakeup.wait, args=("a", AGES), daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads


def assert_ended(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def test_a_ring_ends_a_wait_in_another_thread():
    wakeup = ObservedWakeup()
    waiters = waiting_threads(wakeup)
    wakeup.await_waits()

    wakeup.notify("a")

    assert_ended(waiters)


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
    wakeup = ObservedWakeup()
    waiters = waiting_threads(wakeup, 5)
    wakeup.await_waits(5)

    wakeup.notify("a")

    assert_ended(waiters)
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
    wakeup = ObservedWakeup()

    def ring() -> None:
        wakeup.await_waits()
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
    wakeup = ObservedWakeup()
    patient = waiting_threads(wakeup)
    wakeup.await_waits()
    wakeup.wait("a", 0.001)
    wakeup.notify("a")
    assert_ended(patient)
