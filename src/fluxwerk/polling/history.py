"""How long earlier tasks took, and so when the next one is worth a poll.

One history serves all clients of a process.  It keeps a histogram for each host, model and size, in a file only if it
is given one, and holds every poll of the process to one budget.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from math import ceil, inf, log2
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from fluxwerk.errors import InvalidUsageError
from fluxwerk.polling import schedule
from fluxwerk.polling.histogram import Histogram, read_histogram, write_histogram
from fluxwerk.polling.limiter import BUDGET, RateLimiter
from fluxwerk.polling.reliability import WebhookReliability
from fluxwerk.polling.schedule import Schedule
from fluxwerk.protocol import retry
from fluxwerk.protocol.retry import Plan
from fluxwerk.types import Json, Outcome, Status, Task

# A schedule is made anew when this much more is known, as a share and in observations.
STALE = (0.05, 4)
# The number of kinds of tasks that are remembered; those not seen for longest are forgotten first.
KINDS = 200
# Saved after this many new observations, and when a client is closed.
SAVE_EVERY = 50
# A task that is first polled later than this, in seconds after its submit, does not show when it ended.
FRESH = 1.0
FORMAT = 1
FILE_NAME = "history.json"
# FLUXWERK_CACHE says so where nothing is to be kept.
OFF = "off"
# Megapixels: larger images are of the largest class.
LARGEST_CLASS = 4096.0
# Progress that grows by less than this is as good as smooth.
LEAST_GRAIN = 0.01
# Behind a webhook: the first poll in seconds at least, and by how much it comes later than nearly all tasks take.
BEHIND_A_WEBHOOK = (3.0, 30.0)
NEARLY_ALL, LATER = 0.99, 1.5

RUNNING = frozenset({Outcome.RUNNING, Outcome.MISSING})

log = logging.getLogger("fluxwerk")


class PollingHistory:
    """Learns how long tasks take and plans polls; safe to share between threads and event loops.

    `path` is a file to keep it in; without one it is forgotten with the process.  With `learning` off the polls of
    every task are planned as if nothing were known.  `budget` bounds the polls in a second.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, learning: bool = True, budget: float = BUDGET
    ) -> None:
        if not 0 < budget < inf:
            raise InvalidUsageError(f"budget = {budget}: it is a number of polls in a second, more than none.")
        self.path = Path(path) if path else None
        self.learning = learning
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}
        self._gate = RateLimiter(budget)
        self._watched: weakref.WeakSet[_Watch] = weakref.WeakSet()
        self._unsaved = 0
        self._load()

    def __repr__(self) -> str:
        return f"PollingHistory({len(self._kinds)} kinds of tasks, {len(self._watched)} watched)"

    def plan(
        self,
        task: Task,
        now: Callable[[], float],
        age: float | None = None,
        *,
        crowded: Callable[[], bool] = lambda: False,
        webhook: WebhookReliability | None = None,
    ) -> Plan:
        """Plan the polls of a task that was submitted `age` seconds ago, `None` if that is unknown.

        `now` tells the time in seconds.  While it is `crowded` others wait for the task's slot, and polls are denser.
        A task with a `webhook` is announced by it when it ends: while that is trusted, polls only stand behind it.
        """
        watch = _Watch(self, kind_of(task), now, age, crowded, webhook)
        if webhook is None or not webhook.is_trusted:
            with self._lock:
                self._watched.add(watch)
        return watch

    def leave(self, watch: _Watch) -> None:
        """Note that a task has ended, and share the budget among the others."""
        with self._lock:
            self._watched.discard(watch)

    def refused(self, now: float, pause: float) -> None:
        """Note that the service refused a poll: poll nothing for `pause` seconds, then half as often as before."""
        with self._lock:
            self._gate.refuse(now, pause)

    def usual(self, kind: str) -> float | None:
        """Say how many seconds nearly all tasks of a kind take at most, or `None` if that is not known."""
        with self._lock:
            known = self._kinds.get(kind)
            enough = known is not None and self.learning and known.sketch.weight >= schedule.ENOUGH
            return known.sketch.quantile(NEARLY_ALL) if known and enough else None

    def schedule(self, kind: str, *, crowded: bool) -> Schedule | None:
        """Return when tasks of a kind are worth a look, or `None` if too little is known."""
        with self._lock:
            known = self._kinds.get(kind)
            if known is None or not self.learning:
                return None
            price = schedule.CROWD_PRICE if crowded else schedule.PRICE
            found = known.schedule(price)
            # Many tasks share the budget: the price rises until it suffices.  Polls go with its inverse root.
            excess = found.rate * len(self._watched) / self._gate.rate if found else 0.0
            return known.schedule(price * 2.0 ** (min(24, ceil(4 * log2(excess))) / 2)) if excess > 1 else found

    def learn(self, kind: str, low: float, high: float, exact: float | None) -> None:
        """Take in a task that ended between two moments, in seconds since its submit, or exactly at one of them."""
        with self._lock:
            self._used(kind).sketch.learn(low, high, exact)
            self._unsaved += 1
            due = self._unsaved >= SAVE_EVERY
        if due:
            self.save()

    def grain(self, kind: str, step: float) -> float:
        """Note by how much a task's progress grew at once, and return the smallest such step of its kind."""
        with self._lock:
            known = self._used(kind)
            known.grain = min(known.grain, step) if step > LEAST_GRAIN else known.grain
            return known.grain

    def book(self, now: float, moment: float) -> float:
        """Take a place for a poll at that moment, or as soon after it as the budget allows, and return when."""
        with self._lock:
            return self._gate.book(now, moment)

    def save(self) -> None:
        """Write what was learned to the file, if there is one; a disk that takes nothing loses no more than this."""
        with self._lock:
            if not (self.path and self._unsaved):
                return
            self._unsaved = 0
            kinds = {name: {"used": round(kind.used), "bins": kind.write()} for name, kind in self._kinds.items()}
        # A name of its own: others may be saving the same file, in this process or in another container.
        beside = self.path.with_name(f"{self.path.name}.{os.urandom(6).hex()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({"format": FORMAT, "kinds": kinds}))
            beside.replace(self.path)
        except OSError as trouble:
            log.debug("how long tasks take was not saved: %s", trouble)
            with suppress(OSError):
                beside.unlink(missing_ok=True)

    def _used(self, kind: str) -> _Kind:
        """Return what is known of a kind, which was seen now; only the latest `KINDS` are remembered."""
        known = self._kinds.setdefault(kind, _Kind())
        known.used = time.time()
        if len(self._kinds) > KINDS:
            del self._kinds[min(self._kinds, key=lambda name: self._kinds[name].used)]
        return known

    def _load(self) -> None:
        if self.path is None:
            return
        try:
            body: Json = json.loads(self.path.read_text())
            kinds = cast("Mapping[str, Json]", body["kinds"] if body["format"] == FORMAT else {})
            # A moment that is yet to come would never be the longest ago.
            read = [(min(float(kind["used"]), time.time()), name, kind["bins"]) for name, kind in kinds.items()]
            newest = sorted((one for one in read if one[0] >= 0), key=lambda one: one[0])[-KINDS:]
            self._kinds = {name: _Kind(read_histogram(bins), used) for used, name, bins in newest}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            # No file, or one that cannot be read: everything in it can be learned again.
            self._kinds = {}


class _Kind:
    """What is known of one kind of tasks, with the schedules that were made of it by their price."""

    def __init__(self, sketch: Histogram | None = None, used: float = 0.0) -> None:
        self.sketch = sketch or Histogram()
        self.used = used
        self.grain = 1.0
        self._made: dict[float, Schedule | None] = {}
        self._version = -1

    def schedule(self, price: float) -> Schedule | None:
        if self.sketch.weight < schedule.ENOUGH:
            return None
        share, least = STALE
        if self.sketch.version - self._version >= max(least, share * self.sketch.weight) or self._version < 0:
            self._made, self._version = {}, self.sketch.version
        if price not in self._made:
            self._made[price] = schedule.schedule(self.sketch, price)
        return self._made[price]

    def write(self) -> Json:
        return write_histogram(self.sketch)


class _Watch:
    """The plan of one task: it sees every status, the last one too, and learns from it."""

    def __init__(
        self,
        history: PollingHistory,
        kind: str,
        now: Callable[[], float],
        age: float | None,
        crowded: Callable[[], bool],
        webhook: WebhookReliability | None,
    ) -> None:
        self._history = history
        self._kind = kind
        self._now = now
        self._crowded = crowded
        self._webhook = webhook
        self._began = None if age is None else now() - age
        self._fresh = age is not None and age <= FRESH
        self._asked = 0.0
        self._low = 0.0
        self._share = 0.0
        self._unknown = retry.geometric()
        self._unknown_behind = retry.geometric(*BEHIND_A_WEBHOOK)

    def __call__(self, status: Status | None) -> float:
        now = self._now()
        if status is not None and status.outcome not in RUNNING:
            self._history.leave(self)
            self._ended(status, now)
            return 0.0
        if status is not None and self._began is not None:
            self._low = max(self._low, min(self._asked, now) - self._began)
        pause = self._pause(status, now)
        moment = now + pause if self._is_announced else self._history.book(now, now + pause)
        self._asked = moment
        return moment - now

    @property
    def _is_announced(self) -> bool:
        return self._webhook is not None and self._webhook.is_trusted

    def _ended(self, status: Status, now: float) -> None:
        # Without a webhook a pause ends early at a deadline alone, which tells nothing of the task's end.
        announced = self._webhook is not None and now < self._asked
        if self._webhook and self._fresh:
            self._webhook.note_ending(announced=announced)
        ready = status.outcome is Outcome.READY
        if not ready or self._began is None or not self._fresh or not self._history.learning:
            return
        # An answer that comes so late is that of another poll: those before it were lost.
        asked = self._asked if 0 <= now - self._asked < retry.FIRST_BACKOFF else now
        took, said = asked - self._began, status.seconds
        exact = took if announced else said if said is not None and self._low < said <= took else None
        self._history.learn(self._kind, self._low, took, exact)

    def _pause(self, status: Status | None, now: float) -> float:
        if self._began is None:
            return (self._unknown_behind if self._is_announced else self._unknown)(status)
        elapsed = now - self._began
        if self._is_announced:
            return self._behind_a_webhook(status, elapsed)
        schedule = self._history.schedule(self._kind, crowded=self._crowded())
        told = self._by_progress(status)
        if told is None and schedule is None:
            return self._unknown(status)
        if told is None and schedule is not None:
            told = schedule.after(self._low)
        # Both count from when the last poll left, which is longer ago than its answer.
        return max(0.0 if status is None else retry.SHORTEST_POLL, self._low + (told or 0.0) - elapsed)

    def _by_progress(self, status: Status | None) -> float | None:
        """Pause until the end that the progress foretells, in seconds since the last poll left; `None` without any."""
        share = status.progress if status else None
        if share is None or not 0 < share < 1 or not self._history.learning:
            return None
        grain = self._history.grain(self._kind, abs(share - self._share))
        self._share = share
        return schedule.foresee(self._low, share, grain, schedule.CROWD_PRICE if self._crowded() else schedule.PRICE)

    def _behind_a_webhook(self, status: Status | None, elapsed: float) -> float:
        usual = self._history.usual(self._kind) if status is None else None
        return self._unknown_behind(status) if usual is None else max(BEHIND_A_WEBHOOK[0], LATER * usual - elapsed)


_shared: list[PollingHistory] = []
_sharing = threading.Lock()


def shared() -> PollingHistory:
    """Return the history that all clients of this process share unless they are given one.

    It is forgotten with the process, unless FLUXWERK_CACHE names the folder to keep it in.
    """
    with _sharing:
        if not _shared:
            _shared.append(PollingHistory(named_file()))
        return _shared[0]


def kind_of(task: Task) -> str:
    """Name the kind of a task: tasks of one host, model and size class take about as long."""
    try:
        host = urlsplit(task.polling_url).hostname or ""
    except ValueError:
        # It will not be polled: the check before the poll refuses it.
        host = ""
    made, given = (_class_of(size) for size in (task.output_mp, task.input_mp))
    return f"{host} {task.model} {made} {given}"


def _class_of(megapixels: Decimal | None) -> str:
    """Name the size class: none at all, or the next power of two, from a quarter of a megapixel."""
    if megapixels is None or megapixels <= 0:
        return "?" if megapixels is None else "0"
    return f"{2.0 ** ceil(log2(max(0.25, min(LARGEST_CLASS, float(megapixels))))):g}"


def named_file() -> Path | None:
    """Return the file of a history in the folder that FLUXWERK_CACHE names, `None` if it names none or says `off`."""
    folder = os.environ.get("FLUXWERK_CACHE", "")
    return Path(folder) / FILE_NAME if folder and folder != OFF else None


def user_file() -> Path | None:
    """Return the file of this user's history, as the command line keeps it: in FLUXWERK_CACHE or the system's cache."""
    if os.environ.get("FLUXWERK_CACHE"):
        return named_file()
    from platformdirs import user_cache_path  # noqa: PLC0415  (only the command line pays for it)

    try:
        folder = user_cache_path("fluxwerk", appauthor=False)
    except RuntimeError:
        # A user without a home, as in many containers.
        return None
    return folder / FILE_NAME if folder.is_absolute() else None
