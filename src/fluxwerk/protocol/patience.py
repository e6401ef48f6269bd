"""How long to wait before the next call, and what may be repeated: numbers and pure functions, all in seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import exp, sqrt
from typing import TypeAlias

from fluxwerk.protocol.sketch import LAST, RATIO, Sketch, edge
from fluxwerk.types import Status

# Says how many seconds to pause before the next poll, given what the last one said; `None` before the first.
Plan: TypeAlias = Callable[[Status | None], float]

# A service that asks for more than this is better asked again by a person.
LONGEST_RETRY_AFTER = 120.0
# "Task not found" can appear just after a submit, before every machine of the service has heard of it.
GRACE = 10.0
# A poll that is refused outright this often in a row will not get better.
REFUSED_POLLS = 3
UNREACHABLE_SUBMITS = 5
REDIRECTS = 3
JITTER = 0.25

FIRST_POLL = 0.1
POLL_GROWTH = 1.5
LONGEST_POLL = 2.0
SHORTEST_POLL = 0.005
FIRST_BACKOFF = 0.5
BACKOFF_GROWTH = 2.0
LONGEST_BACKOFF = 8.0


def geometric(first: float = FIRST_POLL, longest: float = LONGEST_POLL) -> Plan:
    """Plan the polls of a task about which nothing is known: from a tenth of a second, growing by half, to two."""
    pause = first / POLL_GROWTH

    def plan(_: Status | None) -> float:
        nonlocal pause
        pause = min(longest, pause * POLL_GROWTH)
        return pause

    return plan


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


def schedule(sketch: Sketch, price: float) -> Schedule | None:
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


def _survival(sketch: Sketch, least: float) -> tuple[list[float], list[float]]:
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


def _knots(sketch: Sketch) -> list[tuple[float, float]]:
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


def _tail(sketch: Sketch, start: float, share: float) -> list[tuple[float, float]]:
    """Let the share that runs longer than the cells thin out by the mean of what it ran beyond them."""
    beyond = {number: held for number, held in sketch.bins.items() if edge(number) > start}
    excess = sum(held * (edge(number) - start) for number, held in beyond.items())
    scale = max(excess / sum(beyond.values()) if beyond else 0.0, start * (RATIO - 1))
    return [(start + scale * step, share * exp(-step)) for step in TAIL]


def backoff(failures: int) -> float:
    """Pause after so many failures in a row, doubling from half a second to eight."""
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * BACKOFF_GROWTH ** min(failures - 1, 10))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After as seconds, whether it gives seconds or a date; `None` if it is missing or unreadable.

    A date is measured against the response's own Date, so that no clock is needed and a wrong one does no harm.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    if not text:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  (rare, and slow to import)

    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
