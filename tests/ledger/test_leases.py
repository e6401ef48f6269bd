from __future__ import annotations

import pytest

from fluxwerk.batch import plan
from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger.job import Stage
from fluxwerk.testing import PretendClock
from support.jobs import BASE, ledger_with, status, task


def test_twenty_four_tasks_are_in_flight_over_all_processes():
    ledger = ledger_with(100)
    first, second = ledger.leases.register(), ledger.leases.register()
    assert len(ledger.submitting(first, 20, BASE).jobs) == 20
    assert len(ledger.submitting(second, 20, BASE).jobs) == 4
    assert ledger.submitting(first, 20, BASE).jobs == ()


def test_kontext_max_has_six_slots_of_its_own():
    ledger = ledger_with(30)
    plan(ledger, [{"prompt": f"edit {number}"} for number in range(10)], model="flux-kontext-max")
    jobs = ledger.submitting(ledger.leases.register(), 100, BASE).jobs
    assert len(jobs) == 30
    assert sum(job.pool == "flux-kontext-max" for job in jobs) == 6


def test_a_slot_is_free_again_when_its_task_is_ready_and_not_before():
    ledger = ledger_with(30)
    worker = ledger.leases.register()
    job = ledger.submitting(worker, 24, BASE).jobs[0]
    accepted = ledger.submitted(job, task())
    assert accepted
    assert ledger.submitting(worker, 24, BASE).jobs == ()
    ledger.ready(accepted, status(accepted))
    assert len(ledger.submitting(worker, 24, BASE).jobs) == 1


def test_the_tasks_of_a_dead_process_keep_their_slots():
    clock = PretendClock()
    ledger = ledger_with(50, clock)
    dead = ledger.leases.register(lease=6.0)
    for job in ledger.submitting(dead, 24, BASE).jobs:
        ledger.submitted(job, task(f"task-{job.id}"))
    clock.sleep(10)
    assert ledger.leases.expire_dead() == [dead]
    assert ledger.submitting(ledger.leases.register(), 24, BASE).jobs == ()


def test_a_task_in_doubt_keeps_its_slot_for_a_minute():
    clock = PretendClock()
    ledger = ledger_with(50, clock)
    worker = ledger.leases.register(lease=1000.0)
    for job in ledger.submitting(worker, 24, BASE).jobs:
        ledger.doubted(job, "lost")
    assert ledger.submitting(worker, 24, BASE).jobs == ()
    clock.sleep(61)
    assert len(ledger.submitting(worker, 24, BASE).jobs) == 24


def test_a_clock_set_back_does_not_hold_the_slot_of_a_doubt():
    """A clock that is set back an hour does not hold the slot of a doubt for an hour."""
    clock = PretendClock()
    ledger = ledger_with(50, clock)
    for job in ledger.submitting(ledger.leases.register(), 24, BASE).jobs:
        ledger.doubted(job, "lost")
    clock.sleep(-3600)
    assert len(ledger.submitting(ledger.leases.register(), 24, BASE).jobs) == 24


def test_a_process_that_beats_is_never_taken_over():
    clock = PretendClock()
    ledger = ledger_with(1, clock)
    worker = ledger.leases.register(lease=6.0)
    for _ in range(10):
        clock.sleep(5)
        assert ledger.leases.renew(worker)
        assert ledger.leases.expire_dead() == []


def test_a_dead_process_is_taken_over_within_ten_seconds():
    """A dead process is taken over within ten seconds by one that beats every two."""
    clock = PretendClock()
    ledger = ledger_with(1, clock)
    dead, alive = ledger.leases.register(), ledger.leases.register()
    died = clock.now()
    while not ledger.leases.expire_dead():
        clock.sleep(2)
        assert ledger.leases.renew(alive)
    assert clock.now() - died < 10
    assert not ledger.leases.renew(dead)


def test_a_clock_set_back_does_not_extend_a_dead_lease():
    """A clock that is set back an hour does not let a dead process live an hour."""
    clock = PretendClock()
    ledger = ledger_with(1, clock)
    dead = ledger.leases.register(lease=6.0)
    clock.sleep(-3600)
    assert ledger.leases.expire_dead() == []
    clock.sleep(6.5)
    assert ledger.leases.expire_dead() == [dead]


def test_a_clock_set_forward_costs_jobs_but_no_money():
    """A clock that is set forward costs a living process its jobs but no money."""
    clock = PretendClock()
    ledger = ledger_with(2, clock)
    alive = ledger.leases.register(lease=6.0)
    first, second = ledger.submitting(alive, 2, BASE).jobs
    accepted = ledger.submitted(first, task("task-1"))
    assert accepted
    clock.sleep(3600)
    other = ledger.leases.register(lease=6.0)
    assert ledger.leases.expire_dead() == [alive]

    # The answer of the submit that was under way comes late, and finds its job.
    assert ledger.submitted(second, task("task-2")) is None
    assert {job.task for job in ledger.adopt(other, 9)} == {task("task-1"), task("task-2")}
    assert not ledger.leases.renew(alive)


def test_retiring_leaves_paid_work_to_others():
    """Retiring leaves what was paid for to others and a submit under way in doubt."""
    ledger = ledger_with(2)
    worker = ledger.leases.register()
    first, _ = ledger.submitting(worker, 2, BASE).jobs
    ledger.submitted(first, task())
    ledger.leases.unregister(worker)
    assert [row["stage"] for row in ledger.rows()] == [Stage.SUBMITTED, Stage.DOUBTFUL]
    assert len(ledger.adopt(ledger.leases.register(), 5)) == 1


def test_jobs_of_a_manifest_that_is_still_being_planned_are_not_touched():
    ledger = ledger_with(0)
    rows = ({"prompt": f"image {number}" if number < 3000 else 7, "size": "wrong" if number == 3000 else None}
            for number in range(3001))  # fmt: skip
    claimed: list[int] = []
    worker = ledger.leases.register()
    with pytest.raises(InvalidUsageError, match="line 3001"):
        plan(ledger, rows, on_line=lambda _: claimed.append(len(ledger.submitting(worker, 24, BASE).jobs)))
    assert claimed == [0]
    assert list(ledger.rows()) == []
