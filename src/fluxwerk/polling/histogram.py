"""How long tasks of one kind take, learned as they end: a histogram with bins of equal ratio that forgets slowly.

Bins of two percent keep every quantile within two percent (the idea of DDSketch, Masson et al. 2019).  Polls only tell
between which two moments a task ended, so an observation is an interval; its weight is shared out as what is known
already says (the self-consistent estimate of Turnbull 1976, one step for each observation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, log
from typing import cast

from fluxwerk.types import Json

RATIO = 1.02
# Seconds: the right edges of the first bin and of the last one.
SHORTEST, LONGEST = 0.005, 7200.0
LAST = ceil(log(LONGEST / SHORTEST) / log(RATIO))
# So many observations a sketch remembers, in the mean: enough to be smooth, few enough to follow a drift.
MEMORY = 120.0
# This share of an interval's weight is spread evenly over it: what is known already may have become wrong.
LEAK = 0.25
# An exact observation is one of many that are near: its weight over the bins around it.
KERNEL = {-2: 1 / 9, -1: 2 / 9, 0: 3 / 9, 1: 2 / 9, 2: 1 / 9}
# Weights grow instead of all others shrinking; at this size they are divided back.
RESCALE_AT = 1e9


def bin_of(seconds: float) -> int:
    """Return the number of the bin in which a duration falls; each holds its right edge."""
    return 0 if seconds <= SHORTEST else min(LAST, ceil(log(seconds / SHORTEST) / log(RATIO) - 1e-9))


def edge(number: int) -> float:
    """Return the right edge of a bin in seconds; the left one of the first bin is 0."""
    return 0.0 if number < 0 else float(SHORTEST * RATIO**number)


@dataclass(slots=True)
class Histogram:
    """Durations in seconds, the recent ones weighing most.

    `bins` hold weights, of which `unit` is what one observation weighs now; `version` counts what was learned.
    """

    bins: dict[int, float] = field(default_factory=dict[int, float])
    version: int = 0
    unit: float = 1.0

    @property
    def weight(self) -> float:
        """How many observations are remembered."""
        return sum(self.bins.values()) / self.unit

    def learn(self, low: float, high: float, exact: float | None = None) -> None:
        """Take in a task that ended between two moments, or exactly at one of them; seconds since its submit."""
        self._forget()
        for number, share in (_around(exact) if exact is not None else self._spread(low, high)).items():
            self.bins[number] = self.bins.get(number, 0.0) + share * self.unit
        self.version += 1

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the tasks does not exceed, within two percent; 0 if none is known."""
        wanted, seen = share * sum(self.bins.values()), 0.0
        for number in sorted(self.bins):
            seen += self.bins[number]
            if seen >= wanted:
                return edge(number)
        return 0.0

    def _forget(self) -> None:
        self.unit *= 1 + 1 / MEMORY
        if self.unit > RESCALE_AT:
            # What has faded to nothing is dropped with it.
            self.bins = {number: held / self.unit for number, held in self.bins.items() if held > self.unit * 1e-6}
            self.unit = 1.0

    def _spread(self, low: float, high: float) -> dict[int, float]:
        first, last = bin_of(low) + (low > SHORTEST), bin_of(high)
        first = min(first, last)
        widths = {number: edge(number) - edge(number - 1) for number in range(first, last + 1)}
        width, known = sum(widths.values()), sum(self.bins.get(number, 0.0) for number in widths)
        leak = LEAK if known > 0 else 1.0
        return {
            number: leak * wide / width + ((1 - leak) * self.bins.get(number, 0.0) / known if known > 0 else 0.0)
            for number, wide in widths.items()
        }


def _around(seconds: float) -> dict[int, float]:
    middle, shares = bin_of(seconds), dict[int, float]()
    for step, share in KERNEL.items():
        number = min(LAST, max(0, middle + step))
        shares[number] = shares.get(number, 0.0) + share
    return shares


def write_histogram(sketch: Histogram) -> Json:
    """Write a sketch as JSON, with weights in observations."""
    unit = sketch.unit
    return {str(number): round(held / unit, 5) for number, held in sorted(sketch.bins.items()) if held > unit * 1e-5}


def read_histogram(body: Json) -> Histogram:
    """Read a sketch; raises `ValueError` for what is none."""
    if not isinstance(body, Mapping):
        raise ValueError("not a sketch")  # noqa: TRY004  (like every other fault in it)
    bins: dict[int, float] = {}
    for name, held in cast("Mapping[str, Json]", body).items():
        if not isinstance(held, int | float) or isinstance(held, bool) or not 0 <= held <= 2 * MEMORY:
            raise ValueError("a weight is no number of observations")
        if not 0 <= int(name) <= LAST:
            raise ValueError("a bin is none of ours")
        bins[int(name)] = float(held)
    if sum(bins.values()) > 2 * MEMORY:
        raise ValueError("more observations than are remembered")
    return Histogram(bins)
