"""Who takes the next step: drafts of one shape together, shapes in turn, by what their steps cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from fluxwerk.engines import Order


class Stepping(Protocol):
    """What is known of a draft here."""

    @property
    def number(self) -> int:
        """Tell it from all others."""
        ...

    @property
    def key(self) -> Hashable:
        """Name the group of drafts with which it may share a forward pass."""
        ...

    @property
    def price(self) -> float:
        """Say what one step of it costs, in tokens of a short sequence."""
        ...


D = TypeVar("D", bound=Stepping)


def price(tokens: int, width: int) -> float:
    """Say what a step over so many tokens costs, in tokens of a short sequence, for a transformer of that width.

    The linear layers take 26 LH²S operations and attention 4 LHS², so the price is S (1 + 2S/13H).  A reference of a
    megapixel makes a step of klein 4B 2.2 times as dear by this, and four of them 7.6 times.
    """
    return tokens * (1 + 2 * tokens / (13 * width))


class Groups(Generic[D]):
    """The drafts at work; `budget` is what one forward pass may cost.

    Each group has a meter of what it has cost.  The group whose meter is lowest goes next, and in it those who came
    first; a group that is new starts at the meter of the last one that went.  So none waits longer than one pass of
    every other, and two equal drafts that fill the device each are finished one after the other.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._drafts: dict[int, D] = {}
        self._meters: dict[Hashable, float] = {}
        self._limits: dict[Hashable, int] = {}
        self._clock = 0.0

    def __len__(self) -> int:
        return len(self._drafts)

    def __iter__(self) -> Iterator[D]:
        return iter(self._drafts.values())

    def add(self, draft: D) -> None:
        """Let a draft take part."""
        self._drafts[draft.number] = draft

    def drop(self, number: int) -> D | None:
        """Take a draft out, if it is here."""
        return self._drafts.pop(number, None)

    def limit(self, key: Hashable, count: int) -> None:
        """Never again put more than so many of this group into one pass."""
        self._limits[key] = max(1, count)

    def pick(self) -> list[D]:
        """Choose who takes the next step together; empty if nobody is here."""
        if not self._drafts:
            return []
        members = self._members()
        meters = {key: max(self._meters.get(key, 0.0), self._clock) for key in members}
        key = min(members, key=lambda one: meters[one])
        batch = self._batch(members[key], self._limits.get(key))
        self._clock = meters[key]
        self._meters = meters | {key: meters[key] + sum(draft.price for draft in batch)}
        return batch

    def _members(self) -> dict[Hashable, list[D]]:
        members: dict[Hashable, list[D]] = {}
        for draft in self._drafts.values():
            members.setdefault(draft.key, []).append(draft)
        return members

    def _batch(self, members: list[D], limit: int | None) -> list[D]:
        batch, spent = members[:1], members[0].price
        for draft in members[1:limit]:
            spent += draft.price
            if spent > self._budget:
                break
            batch.append(draft)
        return batch


class TurnQueue:
    """Orders that wait to be begun: kinds of them in turn, and within a kind whoever came first.

    So those who come after a large job wait for one of its images, and not for all of them.
    """

    def __init__(self) -> None:
        self._kinds: dict[Hashable, deque[tuple[int, Order]]] = {}

    def add(self, number: int, order: Order) -> None:
        """Let an order wait."""
        kind = (order.model, order.width, order.height, len(order.references), order.canvas is None)
        self._kinds.setdefault(kind, deque()).append((number, order))

    def take(self) -> tuple[int, Order]:
        """Return whose turn it is; its kind goes to the end of the line."""
        kind = next(iter(self._kinds))
        waiting = self._kinds.pop(kind)
        taken = waiting.popleft()
        if waiting:
            self._kinds[kind] = waiting
        return taken
