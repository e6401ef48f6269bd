"""When to poll: the schedule that costs least, from what is known about how long tasks take; all in seconds."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from math import exp, sqrt

from fluxwerk.polling.histogram import LAST, RATIO, Histogram, edge
from fluxwerk.protocol.retry import FIRST_POLL, LONGEST_POLL, SHORTEST_POLL

# What one poll is worth, in seconds of waiting: while others wait for the slot, and while one waits for one image.
CROWD_PRICE = 0.0093
PRICE = 0.015
# Fewer observations than this say too little.
ENOUGH = 3.0
# A task that takes longer than any before is worth so many observations.
UNSEEN = 1.0
# Of so large a share, the latest, only the mean is trusted; it is drawn in these multiples of that.
LATE = 0.15
TAIL = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# So many empty bins are no chance: nothing ends between half as long and this.
GAP = 25
# No cell is looked at more closely than in so many pieces.
PIECES = 12
# What holds less than this share of the weight is not looked at.
NEGLIGIBLE = 1e-4


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to look at a task, for the least expected cost: `next[i]` is the edge for the poll after that at edge i.

    `edges` are seconds since the submit, `polls` and `delay` (seconds) what a task costs in the mean, and `rate` how
    many polls in a second that makes.
    """

    edges: tuple[float, ...]
    next: tuple[int, ...]
    polls: float
    delay: float
    rate: float

    def after(self, elapsed: float) -> float:
        """Pause before the next poll, in seconds, of a task that was seen running so many seconds after its submit."""
        at = bisect_left(self.edges, elapsed)
        if at >= len(self.edges) - 1:
            return straggler(elapsed)
        pause = self.edges[self.next[at]] - elapsed
        return min(max(SHORTEST_POLL, pause), max(LONGEST_POLL, elapsed)) if elapsed else pause


def straggler(elapsed: float) -> float:
    """Pause for a task that takes longer than any before: a twentieth of its age, from a tenth of a second to two."""
    return min(LONGEST_POLL, max(FIRST_POLL, elapsed / 20))


def foresee(elapsed: float, share: float, grain: float, price: float) -> float:
    """Pause before the next poll, in seconds, of a task that told its progress as a share of 1, in steps of `grain`.

    What is told lags by up to a grain: the end lies in a window, which begins after the pause, or is polled so densely
    that half a gap is worth a poll.
    """
    latest, earliest = elapsed / share, elapsed / min(1.0, share + grain)
    pause = max(earliest - elapsed, sqrt(2 * price * (latest - earliest)))
    return max(SHORTEST_POLL, min(pause, max(LONGEST_POLL, elapsed)))


def schedule(sketch: Histogram, price: float) -> Schedule | None:
    """Place the polls where they pay most, at `price` seconds each; `None` as long as too little is known.

    This is the inspection problem of Barlow, Hunter and Proschan (1963), solved backwards over the sketch's edges:
    after a poll at edge i that found the task running, V(i) = min over j of price + delay(i, j) + P(running at j) V(j).
    Where the hazard h is flat, the solution is Keller's (1974): a gap of sqrt(2 price / h).
    """
    if sketch.weight < ENOUGH:
        return None
    edges, running = _survival(sketch, price / 2)
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
                # Delays only grow from here.
                break
            total = spent + running[then] / running[at] * cost[then]
            if total < best:
                best, choice[at] = total, then
        cost[at] = best
        polls[at] = 1 + running[choice[at]] / running[at] * polls[choice[at]]
    delay = cost[0] - price * polls[0]
    return Schedule(tuple(edges), tuple(choice), polls[0], delay, polls[0] / (lived[-1] + delay))


def _survival(sketch: Histogram, least: float) -> tuple[list[float], list[float]]:
    """Return moments at least so far apart, and the share of tasks that is still running at each."""
    knots = _knots(sketch)
    edges, running = [0.0], [1.0]
    for (left, before), (right, after) in pairwise(knots):
        step = max(least, left * (RATIO - 1))
        pieces = max(1, min(PIECES, int((right - left) / step))) if after < before else 1
        for piece in range(1, pieces + 1):
            edges.append(left + (right - left) * piece / pieces)
            running.append(before + (after - before) * piece / pieces)
    return edges, running


def _knots(sketch: Histogram) -> list[tuple[float, float]]:
    """Cut the durations into cells of equal weight and return where they end, with the share that runs longer.

    Cells that hold several observations each are narrow where many are and wide where few are, so that neither chance
    nor a gap between two of them is taken for knowledge.  The latest are too few even for that: there the ends thin out
    evenly, by their mean.
    """
    total = sum(sketch.bins.values())
    whole = total * (1 + UNSEEN / sketch.weight)
    cell = total * (0.5 / sqrt(sketch.weight))
    held, left = 0.0, whole
    numbers = sorted(number for number, weight in sketch.bins.items() if weight > total * NEGLIGIBLE)
    knots = [(0.0, 1.0), (edge(numbers[0] - 1), 1.0)]
    for number, following in zip(numbers, [*numbers[1:], LAST], strict=True):
        held += sketch.bins[number]
        late = left - held <= whole * LATE
        lonely = following - number > GAP and left - held > cell
        if held >= cell or lonely or late:
            left, held = left - held, 0.0
            knots.append((edge(number), left / whole))
        if late:
            break
        if lonely:
            knots.append((edge(following - 1), knots[-1][1]))
    return [*knots, *_tail(sketch, *knots[-1])]


def _tail(sketch: Histogram, start: float, share: float) -> list[tuple[float, float]]:
    """Let the share that runs longer than the cells thin out by the mean of what it ran beyond them."""
    beyond = {number: held for number, held in sketch.bins.items() if edge(number) > start}
    excess = sum(held * (edge(number) - start) for number, held in beyond.items())
    scale = max(excess / sum(beyond.values()) if beyond else 0.0, start * (RATIO - 1))
    return [(start + scale * step, share * exp(-step)) for step in TAIL]
