"""Counts of what happened since the server started."""

from __future__ import annotations

from collections import Counter

# Seconds; a klein on a good card takes less than half a second, a dev on an old one a minute.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Counters by label, and a histogram of render times in seconds."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.webhooks: Counter[str] = Counter()
        self.seconds = 0.0
        self.renders = 0
        self._buckets: Counter[float] = Counter()

    def rendered(self, seconds: float) -> None:
        """Count an image and how long the engine took for it."""
        self.renders += 1
        self.seconds += seconds
        for bound in BOUNDS:
            self._buckets[bound] += seconds <= bound

    def buckets(self) -> list[tuple[str, int]]:
        """Pairs of an upper bound in seconds, as text, and the number of images within it."""
        return [*((f"{bound:g}", self._buckets[bound]) for bound in BOUNDS), ("+Inf", self.renders)]
