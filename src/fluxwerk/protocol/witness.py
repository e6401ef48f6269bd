"""What the balance of an account says about submits in doubt: pure arithmetic, in millionths of a credit.

The account lost `difference` beyond all that is known to be charged.  If nobody else uses it, that is the sum of the
doubts that were charged.  If somebody does after all, it is more than that sum, but never less: so a doubt counts as
not charged only if it costs more than the whole difference, whatever else would add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

MICRO = 1_000_000
# A top-up may hide charges; the service sells no fewer credits at once, so doubts below this sum cannot be hidden.
LEAST_TOP_UP = 1000 * MICRO
# More sums than these are not counted: the arithmetic is shown to people.
MOST_SUMS = 4096


@dataclass(frozen=True, slots=True)
class Doubt:
    """One submit in doubt: its number, and what it costs if it was charged, `None` if that is not known.

    `exact` says that other tasks of the same model have cost what was estimated.
    """

    number: int
    cost: int | None
    exact: bool = True


class Verdict(StrEnum):
    """What the arithmetic comes to."""

    SETTLED = "settled"  # one explanation, which holds even if somebody else used the account
    AMBIGUOUS = "ambiguous"  # more than one
    UNEXPLAINED = "unexplained"  # none: somebody else used the account, or it was topped up


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of the doubts, and the arithmetic in words.

    `most_charged` is how many of them can have been charged at most, `None` if nothing is sure.
    """

    verdict: Verdict
    difference: int
    charged: tuple[int, ...] = ()
    not_charged: tuple[int, ...] = ()
    most_charged: int | None = None
    text: str = ""


def judge(difference: int, doubts: Sequence[Doubt]) -> Explanation:
    """Say which doubts the difference of two balances explains."""
    said = f"The account lost {_credits(difference)} credits beyond what is known to be charged"
    if difference < 0:
        text = f"The account gained {_credits(-difference)} credits: it was topped up or refunded meanwhile."
        return Explanation(Verdict.UNEXPLAINED, difference, text=text)
    numbers = tuple(doubt.number for doubt in doubts)
    if sum(doubt.cost or 0 for doubt in doubts) >= LEAST_TOP_UP:
        text = f"{said}, and the doubts cost {LEAST_TOP_UP // MICRO} credits or more: a top-up could hide some of them."
        return Explanation(Verdict.AMBIGUOUS, difference, text=text)
    if difference == 0:
        return Explanation(Verdict.SETTLED, 0, not_charged=numbers, most_charged=0, text=f"{said}: none was charged.")
    costs = [doubt.cost for doubt in doubts if doubt.cost is not None]
    if len(costs) < len(doubts):
        return Explanation(Verdict.AMBIGUOUS, difference, text=f"{said}, and the price of some doubts is not known.")
    most = sum(total <= difference for total in accumulate(sorted(costs)))
    within = [doubt for doubt in doubts if doubt.cost is not None and doubt.cost <= difference]
    beyond = [doubt for doubt in doubts if doubt not in within]
    adds_up = sum(doubt.cost or 0 for doubt in within) == difference
    if adds_up and all(doubt.exact for doubt in beyond):
        charged, rest = (tuple(doubt.number for doubt in part) for part in (within, beyond))
        return Explanation(
            Verdict.SETTLED, difference, charged, rest, len(charged), f"{said}: {_told(within)}. {_spared(beyond)}"
        )
    return _undecided(said, difference, doubts, most if all(doubt.exact for doubt in doubts) else None)


def _undecided(said: str, difference: int, doubts: Sequence[Doubt], bound: int | None) -> Explanation:
    ways = count_ways(difference, [doubt.cost or 0 for doubt in doubts])
    if ways == 0:
        text = f"{said}, and no choice among {_told(doubts)} adds up to that: somebody else uses the account."
        return Explanation(Verdict.UNEXPLAINED, difference, text=text)
    many = f"more than {MOST_SUMS}" if ways is None else str(ways)
    text = f"{said}; among {_told(doubts)} there are {many} ways to explain it, with or without another user."
    return Explanation(Verdict.AMBIGUOUS, difference, most_charged=bound, text=text)


def count_ways(difference: int, costs: Iterable[int]) -> int | None:
    """Count the choices of costs that add up to the difference; `None` if there are too many sums to count."""
    ways = {0: 1}
    for cost in costs:
        more = {total + cost: count for total, count in ways.items() if total + cost <= difference}
        for total, count in more.items():
            ways[total] = ways.get(total, 0) + count
        if len(ways) > MOST_SUMS:
            return None
    return ways.get(difference, 0)


def _told(doubts: Sequence[Doubt]) -> str:
    return " + ".join(f"{_credits(doubt.cost or 0)} (no. {doubt.number})" for doubt in doubts)


def _spared(doubts: Sequence[Doubt]) -> str:
    if not doubts:
        return "All were charged."
    return f"Not charged, since each costs more than that: {', '.join(str(doubt.number) for doubt in doubts)}."


def _credits(micro: int) -> str:
    return f"{micro / MICRO:.6f}".rstrip("0").rstrip(".")
