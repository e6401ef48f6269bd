"""A histogram of how long tasks of one kind take, with bins of equal ratio, in which old observations fade.

Bins of two percent keep every quantile within two percent (the idea of DDSketch, Masson et al. 2019).  Polls show
only between which two moments a task ended, so an observation is an interval; its weight is distributed in proportion
to the weights that its bins already hold (the self-consistent estimate of Turnbull 1976, one step an observation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, log
from typing import cast

from fluxwerk.types import Json

RATIO = 1.02
# The right edges of the first and of the last bin, in seconds.
SHORTEST_DURATION, LONGEST_DURATION = 0.005, 7200.0
LAST_BIN = ceil(log(LONGEST_DURATION / SHORTEST_DURATION) / log(RATIO))
# The number of observations that a histogram remembers on average: enough to be smooth, few enough to follow a drift.
MEMORY = 120.0
# The share of an interval's weight that is spread evenly over it, since earlier observations may be out of date.
LEAK = 0.25
# How the weight of an exact observation is distributed over the bins around its own.
KERNEL = {-2: 1 / 9, -1: 2 / 9, 0: 3 / 9, 1: 2 / 9, 2: 1 / 9}
# New observations weigh more, instead of all others weighing less; above this weight all are scaled down.
HEAVIEST_UNIT = 1e9


def bin_of(seconds: float) -> int:
    """Return the number of the bin of a duration in seconds; each bin includes its right edge."""
    return (
        0 if seconds <= SHORTEST_DURATION else min(LAST_BIN, ceil(log(seconds / SHORTEST_DURATION) / log(RATIO) - 1e-9))
    )


def edge(number: int) -> float:
    """Return the right edge of a bin in seconds; the left one of the first bin is 0."""
    return 0.0 if number < 0 else float(SHORTEST_DURATION * RATIO**number)


@dataclass(slots=True)
class Histogram:
    """Durations in seconds, the recent ones weighing most.

    `bins` holds the weight of each bin, `unit` is the weight of one observation now, `version` counts observations.
    """

    bins: dict[int, float] = field(default_factory=dict[int, float])
    version: int = 0
    unit: float = 1.0

    @property
    def weight(self) -> float:
        """The number of observations that are remembered."""
        return sum(self.bins.values()) / self.unit

    def learn(self, low: float, high: float, exact: float | None = None) -> None:
        """Add a task that ended between `low` and `high` seconds after its submit, or at `exact`."""
        self._forget()
        for number, share in (_around(exact) if exact is not None else self._spread(low, high)).items():
            self.bins[number] = self.bins.get(number, 0.0) + share * self.unit
        self.version += 1

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the tasks does not exceed, within two percent; 0 if there are none."""
        wanted, seen = share * sum(self.bins.values()), 0.0
        for number in sorted(self.bins):
            seen += self.bins[number]
            if seen >= wanted:
                return edge(number)
        return 0.0

    def _forget(self) -> None:
        self.unit *= 1 + 1 / MEMORY
        if self.unit > HEAVIEST_UNIT:
            # Bins whose weight has faded away are dropped.
            self.bins = {number: held / self.unit for number, held in self.bins.items() if held > self.unit * 1e-6}
            self.unit = 1.0

    def _spread(self, low: float, high: float) -> dict[int, float]:
        first, last = bin_of(low) + (low > SHORTEST_DURATION), bin_of(high)
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
        number = min(LAST_BIN, max(0, middle + step))
        shares[number] = shares.get(number, 0.0) + share
    return shares


def write_histogram(histogram: Histogram) -> Json:
    """Write a histogram as JSON, with weights in observations."""
    unit = histogram.unit
    return {str(number): round(held / unit, 5) for number, held in sorted(histogram.bins.items()) if held > unit * 1e-5}


def read_histogram(body: Json) -> Histogram:
    """Read a histogram; raises `ValueError` for anything else."""
    if not isinstance(body, Mapping):
        raise ValueError("not a histogram")  # noqa: TRY004  (like every other fault in it)
    bins: dict[int, float] = {}
    for name, held in cast("Mapping[str, Json]", body).items():
        if not isinstance(held, int | float) or isinstance(held, bool) or not 0 <= held <= 2 * MEMORY:
            raise ValueError("a weight is not a number of observations")
        if not 0 <= int(name) <= LAST_BIN:
            raise ValueError("a bin is not one of this histogram")
        bins[int(name)] = float(held)
    if sum(bins.values()) > 2 * MEMORY:
        raise ValueError("more observations than are remembered")
    return Histogram(bins)
