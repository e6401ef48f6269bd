"""The gateway's journal in the state: slots over all processes, moves that come too late, and money to the end."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from fluxwerk import ConflictError, Task
from fluxwerk.engines.upstream.journal import UpstreamResult
from fluxwerk.server.faults.endings import CANCELLED, Ending
from fluxwerk.server.state.doubts import UpstreamDoubts
from fluxwerk.server.state.upstream import LONGEST_TASK, RowJournal
from fluxwerk.testing import FaceToFace
from fluxwerk.types import Pool
from support.asking import ask, face, json_of, post

TWO = Pool("standard", 2)


class Gateway:
    """A state whose engine is never asked, and the journal of one process over it."""

    def __init__(self, tasks: int = 1) -> None:
        self.face: FaceToFace = face()
        self.face._stop_working()
        self.state = self.face.state
        self.ids = [json_of(post(self.face, {"prompt": "a fox"}))["id"] for _ in range(tasks)]
        self.journal = self.open()

    def open(self, service: str = "") -> RowJournal:
        return RowJournal(self.state.store, self.face.clock.now, service=service)

    def claim(self, journal: RowJournal | None = None):
        """Take the next task up, as a worker does."""
        job = self.state.claim()
        assert job is not None
        assert run((journal or self.journal).find(job.task.id)) is None
        return job

    @property
    def spent(self) -> Decimal:
        return 1_000_000 - Decimal(str(json_of(ask(self.face, "GET", "/v1/credits"))["credits"]))

    def poll(self, identity: str) -> dict:
        return json_of(ask(self.face, "GET", f"/v1/get_result?id={identity}", key=None))


def run(work):
    return asyncio.run(work)


def upstream(name: str = "theirs", cost: int | None = 4) -> Task:
    return Task(name, f"https://api.bfl.ai/v1/get_result?id={name}", "flux-2-pro", cost and Decimal(cost))


def test_a_slot_is_granted_only_while_one_is_free_over_all_processes():
    gateway = Gateway(3)
    journals = [gateway.open() for _ in range(3)]
    jobs = [gateway.claim(journal) for journal in journals]
    granted = [run(journal.intend(job.task.id, TWO)) for journal, job in zip(journals, jobs, strict=True)]
    assert granted == [True, True, False]

    run(journals[0].accept(jobs[0].task.id, upstream()))
    assert not run(journals[2].intend(jobs[2].task.id, TWO))
    run(journals[0].end(jobs[0].task.id, UpstreamResult()))
    assert run(journals[2].intend(jobs[2].task.id, TWO))


def test_each_account_at_the_service_has_slots_of_its_own():
    gateway, one = Gateway(3), Pool("standard", 1)
    journals = [gateway.open(account) for account in ("ours", "theirs", "ours")]
    jobs = [gateway.claim(journal) for journal in journals]
    granted = [run(journal.intend(job.task.id, one)) for journal, job in zip(journals, jobs, strict=True)]
    assert granted == [True, True, False]


def test_a_slot_that_the_release_before_took_is_missing_to_every_account():
    gateway, one = Gateway(2), Pool("standard", 1)
    before, now = gateway.open(), gateway.open("ours")
    first, second = gateway.claim(before), gateway.claim(now)
    assert run(before.intend(first.task.id, one))
    assert not run(now.intend(second.task.id, one))


def test_a_submit_of_another_account_is_told_from_those_of_ones_own():
    gateway = Gateway(2)
    ours, before = gateway.open("ours"), gateway.open()
    for journal in (ours, before):
        run(journal.intend(gateway.claim(journal).task.id, TWO))
    seen = {name: [run(gateway.open(name).find(one)).foreign for one in gateway.ids] for name in ("ours", "theirs")}
    assert seen == {"ours": [False, False], "theirs": [True, False]}


def test_a_slot_that_nobody_gives_back_is_free_after_an_hour():
    gateway = Gateway(2)
    first, second = gateway.claim(), gateway.claim()
    assert run(gateway.journal.intend(first.task.id, Pool("standard", 1)))
    gateway.face.clock.sleep(LONGEST_TASK + 1)
    assert run(gateway.journal.intend(second.task.id, Pool("standard", 1)))


def test_what_was_written_down_is_found_by_another_process():
    gateway = Gateway()
    job = gateway.claim()
    run(gateway.journal.intend(job.task.id, TWO))
    found = run(gateway.open().find(job.task.id))
    assert (found.pool, found.task, found.doubt) == ("standard", None, None)

    run(gateway.journal.accept(job.task.id, upstream()))
    assert run(gateway.open().find(job.task.id)).task == upstream()


def test_a_worker_that_lost_the_task_sends_no_submit():
    gateway = Gateway()
    job = gateway.claim()
    gateway.state.begin(job.task.id)
    with pytest.raises(ConflictError, match="another worker has it"):
        run(gateway.journal.intend(job.task.id, TWO))
    assert run(gateway.open().find(job.task.id)) is None


def test_one_order_has_one_intent():
    gateway = Gateway()
    job = gateway.claim()
    run(gateway.journal.intend(job.task.id, TWO))
    with pytest.raises(ConflictError):
        run(gateway.journal.intend(job.task.id, TWO))


def test_a_task_costs_what_the_service_says_first_and_in_the_end():
    gateway = Gateway()
    job = gateway.claim()
    assert gateway.spent == 3
    run(gateway.journal.intend(job.task.id, TWO))
    run(gateway.journal.accept(job.task.id, upstream(cost=4)))
    assert gateway.spent == 4
    run(gateway.journal.end(job.task.id, UpstreamResult(Decimal("4.5"), 77, "a red fox")))
    assert gateway.spent == Decimal("4.5")

    gateway.state.finish(job, b"image")
    body = gateway.poll(job.task.id)
    assert (body["cost"], body["result"]["seed"], body["result"]["prompt"]) == (4.5, 77, "a red fox")
    assert gateway.spent == Decimal("4.5")


def test_a_service_that_names_no_cost_leaves_what_was_booked():
    gateway = Gateway()
    job = gateway.claim()
    run(gateway.journal.intend(job.task.id, TWO))
    run(gateway.journal.accept(job.task.id, upstream(cost=None)))
    run(gateway.journal.end(job.task.id, UpstreamResult()))
    assert gateway.spent == 3


def test_a_submit_that_was_withdrawn_costs_nothing_when_its_task_ends():
    gateway = Gateway()
    job = gateway.claim()
    run(gateway.journal.intend(job.task.id, TWO))
    run(gateway.journal.withdraw(job.task.id))
    gateway.state.conclude(job, Ending("Error", None), job.fence)
    assert gateway.spent == 0


def test_what_the_service_was_asked_for_stays_booked_when_its_owner_gives_it_up():
    gateway = Gateway()
    job = gateway.claim()
    run(gateway.journal.intend(job.task.id, TWO))
    run(gateway.journal.accept(job.task.id, upstream()))
    gateway.state.conclude(job, CANCELLED)
    assert (gateway.spent, gateway.poll(job.task.id)["cost"]) == (4, 4)
    run(gateway.journal.end(job.task.id, UpstreamResult(Decimal(0))))
    assert (gateway.spent, gateway.poll(job.task.id)["cost"]) == (0, 0)


def test_a_late_answer_ends_a_doubt():
    gateway = Gateway()
    job = gateway.claim()
    run(gateway.journal.intend(job.task.id, TWO))
    run(gateway.open().doubt(job.task.id, "the gateway stopped"))
    run(gateway.journal.accept(job.task.id, upstream()))
    assert UpstreamDoubts(gateway.state.store.database).listed() == []
    assert run(gateway.journal.find(job.task.id)).task == upstream()


def test_a_doubt_gives_its_slot_back():
    gateway = Gateway(2)
    first, second = gateway.claim(), gateway.claim()
    run(gateway.journal.intend(first.task.id, Pool("standard", 1)))
    run(gateway.journal.doubt(first.task.id, "the line broke"))
    assert run(gateway.journal.intend(second.task.id, Pool("standard", 1)))


def test_what_is_forgotten_leaves_nothing_behind():
    gateway = Gateway()
    job = gateway.claim()
    run(gateway.journal.intend(job.task.id, TWO))
    run(gateway.journal.accept(job.task.id, upstream()))
    run(gateway.journal.end(job.task.id, UpstreamResult()))
    gateway.state.finish(job, b"image")
    gateway.face.clock.sleep(100_000)
    gateway.state.forget()
    assert gateway.state.store.database.ask("select * from upstream") == []
