"""An application: whom a key belongs to, and what it may use."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal, TypeAlias

from fluxwerk.errors import Fault, InvalidUsageError

Period: TypeAlias = Literal["day", "week", "month", "total"]
PERIODS: tuple[Period, ...] = ("day", "week", "month", "total")
MINUTE = 60.0
NAME = re.compile(r"[\w.@ -]{1,64}")
# Credits that an application may spend unless its operator says otherwise.
BUDGET = Decimal(1_000_000)
# Before any day of a state, so that a budget without a period counts all of them.
FIRST_DAY = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Application:
    """One application as its row says; `None` means that the server's own limit holds.

    `account` is what its tasks are charged to, whichever of its keys they came with.  `budget` is in credits for each
    `period`, `slots` the tasks in flight in each pool, `rate` the submits a minute, `largest_body` in bytes, `keep` the
    seconds for which its images are kept, and `priority` its share of the workers beside others.
    """

    name: str
    account: str = field(default="", repr=False)
    budget: Decimal = BUDGET
    period: Period = "total"
    slots: int | None = None
    models: frozenset[str] | None = None
    priority: int = 1
    rate: int | None = None
    largest_body: int | None = None
    keep: float | None = None

    def may_use(self, model: str) -> bool:
        """Whether it may use a model."""
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is kept of a key that was just made: its SHA-256, and how a person tells it from others."""

    digest: str = field(repr=False)
    shown: str


def check_name(name: str) -> None:
    """Refuse what cannot be the name of an application or a key; raises `InvalidUsageError`."""
    if not NAME.fullmatch(name):
        raise InvalidUsageError(
            "", faults=[Fault("name", name, "must be 1 to 64 letters, digits, spaces or any of . @ _ -")]
        )


def day_of(now: float) -> str:
    """Return the day in UTC to which a charge belongs, such as 2026-11-26."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def first_day(period: Period, now: float) -> str:
    """Return the day on which the present period began; weeks begin on Monday."""
    return _first(period, datetime.fromtimestamp(now, UTC).date()).isoformat()


def renewal(period: Period, now: float) -> float | None:
    """Return when the next period begins, or `None` if there is no next."""
    first = _first(period, datetime.fromtimestamp(now, UTC).date())
    match period:
        case "day":
            following = first + timedelta(days=1)
        case "week":
            following = first + timedelta(days=7)
        case "month":
            following = (first + timedelta(days=31)).replace(day=1)
        case "total":
            return None
    return datetime(following.year, following.month, following.day, tzinfo=UTC).timestamp()


def throttle(reached: float, now: float, rate: int) -> tuple[float, float]:
    """Judge one submit by a rate a minute: the moment to remember, and the seconds to wait if it comes too early.

    `reached` is the moment that the submits so far have used up.  A whole minute's submits may come at once; after
    that each has to wait for its own share of the minute.
    """
    share = MINUTE / rate
    wait = max(reached, now) + share - (now + MINUTE)
    # A sum of shares misses the minute by a rounding error.
    return (reached, wait) if wait > share * 1e-6 else (max(reached, now) + share, 0.0)


def retry_after(seconds: float) -> int:
    """Write a pause as whole seconds, at least one."""
    return max(1, math.ceil(seconds))


def _first(period: Period, today: date) -> date:
    match period:
        case "day":
            return today
        case "week":
            return today - timedelta(days=today.weekday())
        case "month":
            return today.replace(day=1)
        case "total":
            return FIRST_DAY
