"""What the tests of the ledger share: a ledger on a pretend clock, with jobs in it."""

from __future__ import annotations

from decimal import Decimal

from fluxwerk.batch import plan
from fluxwerk.ledger.job import Job
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.testing import PretendClock
from fluxwerk.types import Outcome, Status, Task

BASE = "https://api.bfl.ai"


def ledger_with(jobs: int, clock: PretendClock | None = None, model: str = "flux-2-pro") -> Ledger:
    """A ledger in memory with so many planned jobs of 3 credits each."""
    ledger = Ledger.open(":memory:", clock=(clock or PretendClock()).now)
    if jobs:
        plan(ledger, [{"prompt": f"image {number}"} for number in range(jobs)], model=model)
    return ledger


def task(name: str = "task-1", cost: str | None = "3") -> Task:
    return Task(name, f"{BASE}/v1/get_result?id={name}", "flux-2-pro", None if cost is None else Decimal(cost))


def status(job: Job, cost: str | None = None) -> Status:
    assert job.task is not None
    url = "https://delivery.bfl.ai/image.png?sig=secret"
    return Status(job.task, "Ready", Outcome.READY, url=url, seed=7, cost=None if cost is None else Decimal(cost))
