"""Answers from storage: a request with a seed that was answered before has the same image, and costs nothing."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from fluxwerk.engines import Order
from fluxwerk.ledger.database import Database
from fluxwerk.protocol.wire import dump

# These say who asks, and not for what.
NOT_ASKED_FOR = frozenset({"user"})
NOTE = """
    insert into answer (digest, task) values (:digest, :task) on conflict (digest) do update set task = excluded.task
"""
FIND = """
    select task.image, task.engine from answer join task on task.id = answer.task
    where digest = :digest and word = 'Ready' and ready_at <= :now and forget_at > :now
"""


class Answer(NamedTuple):
    """The name of an image that is kept, and the engine that made it, where that is known."""

    image: str
    engine: str | None


def digest_of(order: Order) -> str | None:
    """Name what an order asks for: model, prompt, the options as they were written, and every byte of its images.

    `None` without a seed: such a request asks for a new image each time.
    """
    if order.asked.get("seed") is None:
        return None
    asked = {name: value for name, value in order.asked.items() if name not in NOT_ASKED_FOR}
    canvas = order.canvas
    images = (*order.references, *((canvas.source, canvas.mask or b"") if canvas else ()))
    told = {
        "model": order.model,
        "prompt": order.prompt,
        "asked": sorted(asked.items()),
        "names": order.names,
        "images": [hashlib.sha256(image).hexdigest() for image in images],
    }
    return hashlib.sha256(dump(told)).hexdigest()


class Answers:
    """Which task answered a request; what is no longer kept answers nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, order: Order, now: float) -> Answer | None:
        """Return the image that answers an order, if there is one."""
        digest = digest_of(order)
        found = self._database.ask(FIND, digest=digest, now=now) if digest else []
        return Answer(found[0]["image"], found[0]["engine"]) if found else None

    def note(self, order: Order) -> None:
        """Remember that the order's task answered it."""
        digest = digest_of(order)
        if digest:
            with self._database.write() as transaction:
                transaction.run(NOTE, digest=digest, task=order.id)
