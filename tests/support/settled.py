"""What must hold of a fleet once its tasks have ended, whatever happened to its processes."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from queue import Queue

from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.fleet import FleetDatabase, FleetStore
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.storage import open_storage
from support.fleet import Crowd, Fleet

SLOTS = 24


def settled(fleet: Fleet) -> tuple[list[TaskRecord], FleetStore]:
    """Read every task of a fleet; the store is the caller's to close."""
    store = FleetStore(FleetDatabase(fleet.database), open_storage(fleet.storage))
    return Accounts(store=store).tasks.all(0.0), store


def most_at_once(jobs: list[TaskRecord]) -> int:
    """Return how many tasks of one account held slots at the same moment."""
    most = 0
    for account in {job.account for job in jobs}:
        own = [job for job in jobs if job.account == account]
        moments = sorted([(job.accepted, 1) for job in own] + [(job.ready_at, -1) for job in own])
        held = 0
        for _, change in moments:
            held += change
            most = max(most, held)
    return most


def assert_all_is_well(fleet: Fleet, crowd: Crowd, got: Queue, left: int = 0) -> None:
    """Compare what clients and webhooks were told with the rows and the images, and close the books.

    A storage in a folder has at most `left` images of no task: late ones are removed, but not by workers that are gone.
    """
    assert crowd.troubles == []
    assert Counter(crowd.ended.values()) == {"Ready": len(crowd.ended)}
    jobs, store = settled(fleet)
    own = [job for job in jobs if job.order.prompt.startswith("image")]
    assert {job.task.id for job in own} == set(crowd.tasks)
    assert len({job.order.prompt for job in own}) == len(own), "no order was taken twice"
    engine = OfflineEngine()
    for job in own:
        assert store.image(job.image) == engine.render(job.order)
    spent = store.database.ask("select sum(spent) as spent from account")[0]["spent"]
    assert spent == sum(int(job.task.cost * 1_000_000) for job in jobs)
    assert most_at_once(jobs) <= SLOTS
    told: set[str] = set()
    until = time.monotonic() + 60
    while told < set(crowd.tasks) and time.monotonic() < until:
        told.add(json.loads(got.get(timeout=60)[1])["id"])
    assert told == set(crowd.tasks)
    store.close()
    if "://" not in fleet.storage:
        files = {str(file.relative_to(fleet.storage)) for file in Path(fleet.storage, "images").rglob("*.*")}
        kept = {job.image for job in jobs}
        assert kept <= files
        assert len(files - kept) <= left
