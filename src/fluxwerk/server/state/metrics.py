"""Counts of what happened in this process since it started."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Literal, TypeAlias

# Seconds; a klein on a good card takes less than half a second, a dev on an old one a minute.
BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0)
# The parts of a task's life: its submit is answered, it waits for an engine, the engine renders, the image is fetched.
Part: TypeAlias = Literal["submit", "wait", "render", "deliver"]
PARTS: tuple[Part, ...] = ("submit", "wait", "render", "deliver")


class Durations:
    """A histogram of durations in seconds."""

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.sum += seconds
        self._counts[bisect_left(BOUNDS, seconds)] += 1

    def buckets(self) -> list[tuple[str, int]]:
        """Pairs of an upper bound in seconds, as text, and the number of durations within it."""
        pairs: list[tuple[str, int]] = []
        number = 0
        for bound, count in zip((*BOUNDS, float("inf")), self._counts, strict=True):
            number += count
            pairs.append(("+Inf" if bound == float("inf") else f"{bound:g}", number))
        return pairs


class Metrics:
    """Counters by label, and histograms by the part of a task's life and its model."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.webhooks: Counter[str] = Counter()
        self.seconds: dict[Part, defaultdict[str, Durations]] = {part: defaultdict(Durations) for part in PARTS}

    def observe(self, part: Part, model: str, seconds: float) -> None:
        """Count how long one part of a task's life took; a clock that was set back makes it none."""
        self.seconds[part][model].add(max(0.0, seconds))
