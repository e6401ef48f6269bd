"""Retry and pause: which failures a call survives, and how many seconds it waits before the next try."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from fluxwerk.types import Status

# Returns the seconds to pause before the next poll, given the status of the last one, or `None` before the first.
Plan: TypeAlias = Callable[[Status | None], float]

# A service that asks for a longer pause, in seconds, ends the call: its caller decides when to try again.
LONGEST_RETRY_AFTER = 120.0
# "Task not found" can appear just after a submit, before every machine of the service knows the task; seconds.
GRACE = 10.0
# After this many refusals of its polls in a row a task is given up.
REFUSED_POLLS = 3
# The link may come a moment after the word "Ready"; after this many polls in a row, some eight seconds, it will not.
POLLS_WITHOUT_RESULT = 5
UNREACHABLE_SUBMITS = 5
# Where a repeated submit is the same task, a lost answer is asked for this often: for more than a minute, in which a
# server comes back after a restart.
REPEATED_SUBMITS = 12
DELIVERY_REDIRECTS = 3
JITTER = 0.25

FIRST_POLL = 0.1
POLL_GROWTH = 1.5
LONGEST_POLL = 2.0
SHORTEST_POLL = 0.005
FIRST_BACKOFF = 0.5
BACKOFF_GROWTH = 2.0
LONGEST_BACKOFF = 8.0


def geometric(first: float = FIRST_POLL, longest: float = LONGEST_POLL) -> Plan:
    """Plan the polls of a task of unknown duration: pauses from `first`, growing by half, to `longest` seconds."""
    pause = first / POLL_GROWTH

    def plan(_: Status | None) -> float:
        nonlocal pause
        pause = min(longest, pause * POLL_GROWTH)
        return pause

    return plan


def backoff(failures: int) -> float:
    """Return the seconds to pause after this many failures in a row, doubling from half a second to eight."""
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * BACKOFF_GROWTH ** min(failures - 1, 10))


def seconds_of(text: str) -> float | None:
    """Read seconds from a header; `None` if it holds no plain number."""
    return float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After as seconds, whether it gives seconds or a date; `None` if it is missing or unreadable.

    A date is measured against the response's own Date, so it needs no clock and a wrong one does not matter.
    """
    text = headers.get("retry-after", "").strip()
    seconds = seconds_of(text)
    if seconds is not None or not text:
        return seconds
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  (rare, and slow to import)

    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
