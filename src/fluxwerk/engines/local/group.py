"""Which samples take the next step: samples of one shape together, shapes in turn, by what their steps cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from fluxwerk.engines import Order


class Stepping(Protocol):
    """What a group needs to know about a sample."""

    @property
    def number(self) -> int:
        """Return the number of the order, which is unique."""
        ...

    @property
    def key(self) -> Hashable:
        """Return the key of the samples with which it may share a forward pass."""
        ...

    @property
    def price(self) -> float:
        """Return what one step of it costs, in tokens of a short sequence."""
        ...


D = TypeVar("D", bound=Stepping)


def price(tokens: int, width: int) -> float:
    """Return what a step over `tokens` costs, in tokens of a short sequence, for a transformer of that width.

    The linear layers take 26 LH²S operations and attention 4 LHS², so the price is S (1 + 2S/13H). One reference of a
    megapixel makes a step of klein 4B 2.2 times as expensive, and four make it 7.6 times as expensive.
    """
    return tokens * (1 + 2 * tokens / (13 * width))


class Groups(Generic[D]):
    """The samples in progress; `budget` is what one forward pass may cost.

    Each group has a meter of what it has cost. The group with the lowest meter goes next, its oldest samples first; a
    new group starts at the meter of the last group that went. A group therefore waits for at most one pass of each
    other group, and of two equal samples that each fill the device, the first is finished before the second.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._samples: dict[int, D] = {}
        self._meters: dict[Hashable, float] = {}
        self._limits: dict[Hashable, int] = {}
        self._clock = 0.0

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[D]:
        return iter(self._samples.values())

    def add(self, sample: D) -> None:
        """Add a sample."""
        self._samples[sample.number] = sample

    def drop(self, number: int) -> D | None:
        """Remove a sample and return it, or `None` if it is not here."""
        return self._samples.pop(number, None)

    def limit(self, key: Hashable, count: int) -> None:
        """Put at most `count` samples of this group into one pass from now on."""
        self._limits[key] = max(1, count)

    def pick(self) -> list[D]:
        """Choose the samples that take the next step together; empty if there are none."""
        if not self._samples:
            return []
        members = self._members()
        meters = {key: max(self._meters.get(key, 0.0), self._clock) for key in members}
        key = min(members, key=lambda one: meters[one])
        batch = self._batch(members[key], self._limits.get(key))
        self._clock = meters[key]
        self._meters = meters | {key: meters[key] + sum(sample.price for sample in batch)}
        return batch

    def _members(self) -> dict[Hashable, list[D]]:
        members: dict[Hashable, list[D]] = {}
        for sample in self._samples.values():
            members.setdefault(sample.key, []).append(sample)
        return members

    def _batch(self, members: list[D], limit: int | None) -> list[D]:
        batch, spent = members[:1], members[0].price
        for sample in members[1:limit]:
            spent += sample.price
            if spent > self._budget:
                break
            batch.append(sample)
        return batch


class TurnQueue:
    """Orders that wait to be prepared: shapes in turn, and within a shape the oldest first.

    An order that arrives after a large job therefore waits for one of its images, not for all of them.
    """

    def __init__(self) -> None:
        self._shapes: dict[Hashable, deque[tuple[int, Order]]] = {}

    def add(self, number: int, order: Order) -> None:
        """Add an order."""
        shape = (order.model, order.width, order.height, len(order.references), order.canvas is None)
        self._shapes.setdefault(shape, deque()).append((number, order))

    def take(self) -> tuple[int, Order]:
        """Remove and return the next order; its shape goes to the end of the queue."""
        shape = next(iter(self._shapes))
        waiting = self._shapes.pop(shape)
        taken = waiting.popleft()
        if waiting:
            self._shapes[shape] = waiting
        return taken
