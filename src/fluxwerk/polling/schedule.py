"""The cheapest moments to poll a task, computed from how long earlier tasks took; all in seconds."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from math import exp, sqrt

from fluxwerk.polling.histogram import LAST_BIN, RATIO, Histogram, edge
from fluxwerk.protocol.retry import FIRST_POLL, LONGEST_POLL, SHORTEST_POLL

# The price of one poll in seconds of waiting: while other tasks wait for the slot, and for a single image.
CROWD_PRICE = 0.0093
PRICE = 0.015
# With fewer observations than this there is no schedule.
ENOUGH = 3.0
# The weight, in observations, of a task that takes longer than any before.
UNSEEN = 1.0
# Of this share of the tasks, the longest, only the mean is used; the curve has points at these multiples of it.
LATE = 0.15
TAIL = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# A gap of this many empty bins is not taken for chance: no task ends within it.
GAP = 25
# Each cell is divided into at most this many pieces.
PIECES = 12
# Bins with less than this share of the weight are left out.
NEGLIGIBLE = 1e-4


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to poll a task for the least expected cost: after the poll at edge i the next is at edge `next[i]`.

    `edges` are seconds since the submit, `polls` and `delay` (seconds) the mean cost of a task, and `rate` the mean
    number of its polls in each second.
    """

    edges: tuple[float, ...]
    next: tuple[int, ...]
    polls: float
    delay: float
    rate: float

    def after(self, elapsed: float) -> float:
        """Return the pause before the next poll of a task that still ran `elapsed` seconds after its submit."""
        at = bisect_left(self.edges, elapsed)
        if at >= len(self.edges) - 1:
            return straggler(elapsed)
        pause = self.edges[self.next[at]] - elapsed
        return min(max(SHORTEST_POLL, pause), max(LONGEST_POLL, elapsed)) if elapsed else pause


def straggler(elapsed: float) -> float:
    """Return the pause for a task that takes longer than any before: a twentieth of its age, from 0.1 to 2 seconds."""
    return min(LONGEST_POLL, max(FIRST_POLL, elapsed / 20))


def foresee(elapsed: float, share: float, grain: float, price: float) -> float:
    """Return the pause before the next poll, in seconds, of a task whose progress is `share` of 1, in steps of `grain`.

    Progress lags by up to one step, so the end lies in a window: the pause reaches its start, or is short enough that
    half of it costs as much as a poll.
    """
    latest, earliest = elapsed / share, elapsed / min(1.0, share + grain)
    pause = max(earliest - elapsed, sqrt(2 * price * (latest - earliest)))
    return max(SHORTEST_POLL, min(pause, max(LONGEST_POLL, elapsed)))


def schedule(histogram: Histogram, price: float) -> Schedule | None:
    """Compute the polls that cost least, at `price` seconds each; `None` with too few observations.

    This is the inspection problem of Barlow, Hunter and Proschan (1963), solved backwards over the histogram's edges:
    after a poll at edge i that found the task running, V(i) = min over j of price + delay(i, j) + P(running at j) V(j).
    Where the hazard h is flat, the solution is Keller's (1974): a gap of sqrt(2 price / h).
    """
    if histogram.weight < ENOUGH:
        return None
    edges, running = _survival(histogram, price / 2)
    lived = [0.0]
    for at in range(1, len(edges)):
        lived.append(lived[-1] + (running[at] + running[at - 1]) / 2 * (edges[at] - edges[at - 1]))
    last = len(edges) - 1
    cost, polls, choice = [price] * len(edges), [1.0] * len(edges), [last] * len(edges)
    for at in range(last - 1, -1, -1):
        best = float("inf")
        for then in range(at + 1, len(edges)):
            spent = price + edges[then] - edges[at] - (lived[then] - lived[at]) / running[at]
            if spent >= best:
                # Every later poll delays the end more.
                break
            total = spent + running[then] / running[at] * cost[then]
            if total < best:
                best, choice[at] = total, then
        cost[at] = best
        polls[at] = 1 + running[choice[at]] / running[at] * polls[choice[at]]
    delay = cost[0] - price * polls[0]
    return Schedule(tuple(edges), tuple(choice), polls[0], delay, polls[0] / (lived[-1] + delay))


def _survival(histogram: Histogram, least: float) -> tuple[list[float], list[float]]:
    """Return moments at least `least` seconds apart, and the share of tasks that still run at each."""
    knots = _knots(histogram)
    edges, running = [0.0], [1.0]
    for (left, before), (right, after) in pairwise(knots):
        step = max(least, left * (RATIO - 1))
        pieces = max(1, min(PIECES, int((right - left) / step))) if after < before else 1
        for piece in range(1, pieces + 1):
            edges.append(left + (right - left) * piece / pieces)
            running.append(before + (after - before) * piece / pieces)
    return edges, running


def _knots(histogram: Histogram) -> list[tuple[float, float]]:
    """Divide the durations into cells of equal weight and return their ends, with the share of tasks that run longer.

    A cell holds several observations, so it is narrow where there are many and wide where there are few, and neither
    chance nor a gap between two observations shows.  The longest tasks are too few even for that: there the share
    decays exponentially, by their mean.
    """
    total = sum(histogram.bins.values())
    whole = total * (1 + UNSEEN / histogram.weight)
    cell = total * (0.5 / sqrt(histogram.weight))
    held, left = 0.0, whole
    numbers = sorted(number for number, weight in histogram.bins.items() if weight > total * NEGLIGIBLE)
    knots = [(0.0, 1.0), (edge(numbers[0] - 1), 1.0)]
    for number, following in zip(numbers, [*numbers[1:], LAST_BIN], strict=True):
        held += histogram.bins[number]
        late = left - held <= whole * LATE
        lonely = following - number > GAP and left - held > cell
        if held >= cell or lonely or late:
            left, held = left - held, 0.0
            knots.append((edge(number), left / whole))
        if late:
            break
        if lonely:
            knots.append((edge(following - 1), knots[-1][1]))
    return [*knots, *_tail(histogram, *knots[-1])]


def _tail(histogram: Histogram, start: float, share: float) -> list[tuple[float, float]]:
    """Let the share of tasks that run longer than the cells decay by the mean of what they run beyond them."""
    beyond = {number: held for number, held in histogram.bins.items() if edge(number) > start}
    excess = sum(held * (edge(number) - start) for number, held in beyond.items())
    scale = max(excess / sum(beyond.values()) if beyond else 0.0, start * (RATIO - 1))
    return [(start + scale * step, share * exp(-step)) for step in TAIL]
