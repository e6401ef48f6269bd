"""A bell shortens naps: from any thread, on any loop, and never by more than it was rung."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from fluxwerk.client.wakeup import Wakeup

# Longer than any test may take: whoever is not woken fails by being killed.
AGES = 1000.0


def awaiting(bell: Wakeup, task_id: str) -> None:
    """Come back when somebody naps for the task."""
    while task_id not in bell._nappers:
        threading.Event().wait(0.001)


def test_a_ring_ends_a_nap_in_another_thread():
    bell, began = Wakeup(), time.monotonic()
    napper = threading.Thread(target=bell.nap, args=("a", AGES))
    napper.start()
    awaiting(bell, "a")

    bell.ring("a")

    napper.join()
    assert time.monotonic() - began < AGES / 2


def test_a_ring_that_came_before_the_nap_is_remembered_once():
    bell = Wakeup()
    bell.ring("a")
    bell.ring("a")
    bell.nap("a", AGES)

    bell.nap("a", 0.0)
    assert repr(bell) == "Wakeup(0 tasks waited for, 0 rings remembered)"


def test_a_ring_is_for_one_task_alone():
    bell = Wakeup()
    bell.ring("b")
    bell.nap("a", 0.001)
    assert repr(bell) == "Wakeup(0 tasks waited for, 1 rings remembered)"


def test_everybody_who_naps_for_a_task_is_woken():
    bell = Wakeup()
    nappers = [threading.Thread(target=bell.nap, args=("a", AGES)) for _ in range(5)]
    for napper in nappers:
        napper.start()
    while len(bell._nappers.get("a", ())) < len(nappers):
        threading.Event().wait(0.001)

    bell.ring("a")

    for napper in nappers:
        napper.join()
    assert repr(bell) == "Wakeup(0 tasks waited for, 0 rings remembered)"


def test_a_nap_that_was_never_rung_for_ends_by_itself_and_leaves_nothing_behind():
    bell = Wakeup()
    bell.nap("a", 0.001)
    asyncio.run(bell.nap_async("a", 0.001))
    assert repr(bell) == "Wakeup(0 tasks waited for, 0 rings remembered)"


def test_a_ring_on_the_loop_ends_a_nap_on_the_loop():
    bell = Wakeup()

    async def run() -> None:
        napper = asyncio.create_task(bell.nap_async("a", AGES))
        await asyncio.sleep(0)
        bell.ring("a")
        await napper
        bell.ring("a")
        await bell.nap_async("a", AGES)

    asyncio.run(run())
    assert repr(bell) == "Wakeup(0 tasks waited for, 0 rings remembered)"


def test_a_ring_from_a_thread_ends_a_nap_on_the_loop():
    bell = Wakeup()

    def ring() -> None:
        awaiting(bell, "a")
        bell.ring("a")

    ringer = threading.Thread(target=ring)
    ringer.start()
    asyncio.run(bell.nap_async("a", AGES))
    ringer.join()
    assert repr(bell) == "Wakeup(0 tasks waited for, 0 rings remembered)"


def test_a_cancelled_nap_is_forgotten():
    bell = Wakeup()

    async def run() -> None:
        napper = asyncio.create_task(bell.nap_async("a", AGES))
        await asyncio.sleep(0)
        napper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await napper

    asyncio.run(run())
    assert repr(bell) == "Wakeup(0 tasks waited for, 0 rings remembered)"


def test_a_ring_after_the_end_of_the_loop_harms_nobody():
    bell, loop = Wakeup(), asyncio.new_event_loop()
    napper = loop.create_task(bell.nap_async("a", AGES))
    loop.run_until_complete(asyncio.sleep(0))
    woken = list(bell._nappers["a"])
    napper.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(napper)
    loop.close()
    bell._nappers["a"] = woken

    bell.ring("a")


def test_rings_that_nobody_hears_do_not_fill_the_memory():
    bell = Wakeup(remembered=100)
    for number in range(1000):
        bell.ring(str(number))
    assert repr(bell) == "Wakeup(0 tasks waited for, 100 rings remembered)"
    bell.nap("999", AGES)
    bell.nap("0", 0.0)


def test_a_napper_that_gives_up_leaves_the_others_listening():
    bell = Wakeup()
    patient = threading.Thread(target=bell.nap, args=("a", 60.0))
    patient.start()
    while "1 tasks waited for" not in repr(bell):
        pass
    bell.nap("a", 0.001)
    bell.ring("a")
    patient.join(30)
    assert not patient.is_alive()
