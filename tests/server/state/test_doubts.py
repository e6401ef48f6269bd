"""UpstreamDoubts of a gateway: listed until a person settles them, whatever became of their task."""

from __future__ import annotations

import asyncio

import pytest

from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.state.doubts import UpstreamDoubts
from fluxwerk.server.state.upstream import RowJournal
from fluxwerk.types import Pool
from support.asking import ask, face, json_of, post

CHARGED = Ending("Error", {"error": "in_doubt"}, paid=True)


def spent(of) -> float:
    return 1_000_000 - json_of(ask(of, "GET", "/v1/credits"))["credits"]


@pytest.mark.parametrize(("charged", "cost"), [(True, 3), (False, 0)])
@pytest.mark.parametrize("later", [0, 100_000], ids=["at-once", "when-its-task-is-forgotten"])
def test_a_doubt_is_listed_until_a_person_settles_it(charged, cost, later):
    of = face()
    of._stop_working()
    post(of, {"prompt": "a fox"})
    journal, doubts = RowJournal(of.state.store, of.clock.now), UpstreamDoubts(of.state.store.database)
    job = of.state.claim()
    asyncio.run(journal.find(job.task.id))
    asyncio.run(journal.intend(job.task.id, Pool("standard", 24)))
    asyncio.run(journal.doubt(job.task.id, "the line broke"))
    of.state.conclude(job, CHARGED, job.fence)
    assert spent(of) == 3

    of.clock.sleep(later)
    of.state.forget()
    [doubt] = doubts.listed()
    assert (doubt.task, doubt.model, doubt.booked, doubt.reason) == (job.task.id, "flux-2-pro", 3, "the line broke")
    assert doubts.settle(job.task.id, charged=charged)
    assert spent(of) == cost
    assert doubts.listed() == []
    assert not doubts.settle(job.task.id, charged=charged)
