"""One row of the ledger as a value, its stages, and the legal transitions between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any

from fluxwerk.protocol.idempotency import key_of
from fluxwerk.protocol.witness import MICRO
from fluxwerk.types import Json, Outcome, Request, Status, Task

ONE = Decimal(1)


class Stage(StrEnum):
    """How far a job is: each word says what is known."""

    PLANNED = "planned"  # nothing has left
    SUBMITTING = "submitting"  # a submit is about to leave, or has left
    SUBMITTED = "submitted"  # the service named a task
    READY = "ready"  # the task has an image
    SAVED = "saved"  # the image is in the storage
    FAILED = "failed"  # the service, or a check before the submit, refused it
    DOUBTFUL = "in doubt"  # a submit left and its answer is unknown


S = Stage
TRANSITIONS: Mapping[Stage, frozenset[Stage]] = {
    # To failed where it is given up before it was submitted.
    S.PLANNED: frozenset({S.SUBMITTING, S.FAILED}),
    # Back to planned only if it is certain that the service did not take it.
    S.SUBMITTING: frozenset({S.SUBMITTED, S.PLANNED, S.FAILED, S.DOUBTFUL}),
    S.SUBMITTED: frozenset({S.READY, S.FAILED}),
    # Back to submitted when the link has died: the task is asked for a fresh one.
    S.READY: frozenset({S.SAVED, S.SUBMITTED, S.FAILED}),
    S.SAVED: frozenset(),
    # By a person: a new attempt, or another look at the task that was paid for.
    S.FAILED: frozenset({S.PLANNED, S.SUBMITTED}),
    # By a person or by a webhook that knows the token.
    # Back to submitting where the server keeps the key of the submit, so that sending it again is the same submit.
    S.DOUBTFUL: frozenset({S.SUBMITTED, S.PLANNED, S.FAILED, S.SUBMITTING}),
}
IN_FLIGHT = (S.SUBMITTING, S.SUBMITTED)
UNFINISHED = (S.SUBMITTING, S.SUBMITTED, S.READY)


@dataclass(frozen=True, slots=True)
class Job:
    """One image that is wanted, as the ledger knows it; amounts are in credits, moments in seconds since 1970."""

    id: int
    line: int
    item: int
    model: str
    pool: str
    fields: Mapping[str, Json] = field(repr=False)
    hash: str
    stage: Stage
    fence: int
    attempt: int
    estimate: Decimal | None = None
    output: str | None = None
    tag: str | None = None
    token: str | None = field(default=None, repr=False)
    base: str | None = None
    began: float | None = None
    submitted: float | None = None
    task: Task | None = None
    settled: Decimal | None = None
    url: str | None = field(default=None, repr=False)
    expires: float | None = None
    seed: int | None = None
    engine: str | None = None

    @property
    def request(self) -> Request:
        """What is wanted, with local images still as their hashes."""
        return Request(self.model, self.fields)

    @property
    def key(self) -> str:
        """The Idempotency-Key of this attempt."""
        return key_of(self.token) if self.token else ""

    @property
    def cost(self) -> Decimal | None:
        """The best that is known of its price, in credits."""
        named = self.task.cost if self.task else None
        return next((amount for amount in (self.settled, named, self.estimate) if amount is not None), None)

    def ready_status(self) -> Status:
        """Return the status with which a poll made it ready."""
        assert self.task is not None
        return Status(
            self.task,
            "Ready",
            Outcome.READY,
            url=self.url,
            seed=self.seed,
            cost=self.settled,
            engine=self.engine,
        )


def read_job(row: Mapping[str, Any]) -> Job:
    """Turn a row into a job."""
    task = None
    if row["task"] is not None:
        task = Task(row["task"], row["polling_url"] or "", row["model"], to_credits(row["cost"]))
    return Job(
        id=row["id"],
        line=row["line"],
        item=row["item"],
        model=row["model"],
        pool=row["pool"],
        fields=json.loads(row["request"]),
        hash=row["request_hash"],
        stage=Stage(row["stage"]),
        fence=row["fence"],
        attempt=row["attempt"],
        estimate=to_credits(row["estimate"]),
        output=row["output"],
        tag=row["tag"],
        token=row["token"],
        base=row["base"],
        began=row["began"],
        submitted=row["submitted"],
        task=task,
        settled=to_credits(row["settled"]),
        url=row["url"],
        expires=row["expires"],
        seed=row["seed"],
        engine=row["engine"],
    )


def to_credits(micro: int | None) -> Decimal | None:
    """Read an amount of the database."""
    return None if micro is None else credits_of(micro)


def credits_of(micro: int) -> Decimal:
    """Turn millionths into credits, without needless zeros."""
    amount = Decimal(micro) / MICRO
    return amount.quantize(ONE) if amount == amount.to_integral() else amount.normalize()


@lru_cache(1024)
def to_micro(amount: Decimal | None) -> int | None:
    """Write an amount for the database, rounded to a millionth of a credit."""
    return None if amount is None else int((amount * MICRO).to_integral_value())
