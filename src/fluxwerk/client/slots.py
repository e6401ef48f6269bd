"""Which submit may leave now: at most as many tasks in flight as the account has slots, for any number of threads.

A slot belongs to the remote task, not to what waits for it: it is held from before the submit until a poll has shown
that the task has ended, even when the client stops waiting for it.  A task that the service does not know, and one
about which no poll has brought news for an hour, keep no slot.

Waiting for a slot is a state machine: `next_timeout` says how long to wait at most, and then it is asked again.  It
knows neither threads nor event loops.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from fluxwerk.drive import Wake
from fluxwerk.protocol import retry
from fluxwerk.types import Outcome, Pool, Status, Task

# No task runs for more seconds than this.
LONGEST_TASK = 3600.0
# What waits for a slot checks this often, in seconds, whether a task that the client no longer waits for has ended.
LOOK_AROUND = 1.0


def _ignore() -> None:
    pass


@dataclass(eq=False, slots=True)
class SlotClaim:
    """One claim to a slot: waiting until `granted`, then held for a submit and for the task that comes of it.

    `until` is the moment on the clock up to which it waits; `wake` is called when it should look again.
    """

    pool: Pool
    until: float = inf
    wake: Wake = field(default=_ignore, repr=False)
    granted: bool = False
    returned: bool = False

    @contextmanager
    def listen(self, wake: Wake) -> Generator[bool]:
        """Call `wake`, from any thread, when the claim is granted; yields whether it is already."""
        self.wake = wake
        try:
            yield self.granted
        finally:
            self.wake = _ignore


class CoolDown(NamedTuple):
    """The service refused a submit: the seconds until the next one leaves, and the pause that the service asked for."""

    left: float
    asked: float | None


@dataclass(slots=True)
class _Queue:
    """What is known of one pool: slots granted, claims waiting, and a cool-down until a moment on the clock."""

    busy: int = 0
    waiting: deque[SlotClaim] = field(default_factory=deque[SlotClaim])
    cooling: bool = False
    until: float = 0.0
    # When the service wants to be asked again, if it said so: a cool-down may end before.
    asked: float | None = None
    probe: SlotClaim | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """A claim that became a task, and since when."""

    claim: SlotClaim
    task: Task
    since: float


class ClientSlots:
    """The slots of one account in one process; safe to share between threads and event loops.

    `most` replaces the catalogue's number for every pool, for a server of your own.  `now` tells the time in seconds.
    """

    def __init__(self, now: Callable[[], float], most: int | None = None) -> None:
        self._now = now
        self._most = most
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}
        self._held: dict[str, _Held] = {}
        self._attended: set[str] = set()
        self._settlers: list[Callable[[], object]] = []

    def most(self, pool: Pool) -> int:
        """How many tasks of the pool may be in flight at once."""
        return self._most or pool.slots

    def ask(self, pool: Pool, wake: Wake = _ignore, until: float = inf) -> SlotClaim:
        """Claim a slot in the order of asking; `wake` is called, from any thread, when the claim is granted."""
        claim = SlotClaim(pool, until, wake)
        with self._lock:
            queue = self._queues.setdefault(pool.name, _Queue())
            queue.waiting.append(claim)
        self.nudge(pool)
        return claim

    def next_timeout(self, claim: SlotClaim) -> float | None:
        """Say for how many seconds a claim that is not granted waits at most before it looks again.

        `None` says that it waits in vain: its time is over, or the service asked for a pause that lasts longer.
        """
        now = self._now()
        left, cool_down = claim.until - now, self.cool_down(claim.pool)
        pause = cool_down.left if cool_down else 0.0
        if left <= 0 or pause >= left:
            return None
        return min(left, LOOK_AROUND, pause or inf)

    def cool_down(self, pool: Pool) -> CoolDown | None:
        """Say for how long no submit of the pool leaves since the service asked for a pause, `None` if it did not."""
        with self._lock:
            queue, now = self._queues[pool.name], self._now()
            if not queue.cooling or queue.until <= now:
                return None
            return CoolDown(queue.until - now, None if queue.asked is None else queue.asked - now)

    def nudge(self, pool: Pool) -> None:
        """Grant what can be granted by now; a cool-down ends by time alone, so what waits looks again."""
        granted: list[SlotClaim] = []
        with self._lock:
            queue = self._queues[pool.name]
            while queue.waiting and queue.busy < self.most(pool) and self._may_grant(queue):
                claim = queue.waiting.popleft()
                claim.granted = True
                queue.busy += 1
                queue.probe = claim if queue.cooling else None
                granted.append(claim)
        for claim in granted:
            try:
                claim.wake()
            except RuntimeError:
                # Its event loop is gone, so it cannot use the slot.
                self.give_back(claim)

    def hold(self, claim: SlotClaim, task: Task) -> None:
        """Tie a claim to the task that its submit became; a cool-down that this submit probed is over."""
        with self._lock:
            self._held[task.id] = _Held(claim, task, self._now())
            self._attended.add(task.id)
            queue = self._queues[claim.pool.name]
            if queue.probe is claim:
                queue.cooling, queue.probe = False, None
        self.nudge(claim.pool)
        self._wake_settlers()

    def give_back(self, claim: SlotClaim, cool: float | None = None, asked: float | None = None) -> None:
        """Return a claim whose submit did not become a task, or that is not wanted any more; twice changes nothing.

        `cool` starts a cool-down of that many seconds: the service is too busy, and no submit of this pool leaves.  It
        ends after `retry.LONGEST_RETRY_AFTER` at the latest, when one submit probes, however long a pause the service
        `asked` for.
        """
        hopeless: list[SlotClaim] = []
        with self._lock:
            if claim.returned:
                return
            claim.returned = True
            queue = self._queues[claim.pool.name]
            if claim.granted:
                queue.busy -= 1
            else:
                queue.waiting.remove(claim)
            if queue.probe is claim:
                queue.probe = None
            if cool is not None:
                now = self._now()
                queue.cooling, queue.until = True, max(queue.until, now + min(cool, retry.LONGEST_RETRY_AFTER))
                queue.asked = None if asked is None else now + asked
                hopeless = [waiting for waiting in queue.waiting if waiting.until <= queue.until]
        for waiting in hopeless:
            # An event loop that is gone waits for nothing.
            with suppress(RuntimeError):
                waiting.wake()
        self.nudge(claim.pool)
        self._wake_settlers()

    def settle(self, wake: Callable[[], object]) -> None:
        """Call `wake`, from any thread, once no submit is on its way; one that waits for a slot has not left."""
        with self._lock:
            self._settlers.append(wake)
        self._wake_settlers()

    def ended(self, task: Task) -> None:
        """Free the slot of a task that has ended; one that holds none changes nothing."""
        with self._lock:
            held = self._held.pop(task.id, None)
            self._attended.discard(task.id)
            if held:
                self._queues[held.claim.pool.name].busy -= 1
        if held:
            self.nudge(held.claim.pool)

    def looked(self, task: Task, status: Status | None) -> None:
        """Note what a poll of a task that the client left has shown; frees its slot if it is over."""
        held = self._held.get(task.id)
        if held is None:
            return
        age = self._now() - held.since
        running = status is None or status.outcome is Outcome.RUNNING
        unknown = status is not None and status.outcome is Outcome.MISSING and age < retry.GRACE
        if age >= LONGEST_TASK or not (running or unknown):
            self.ended(task)

    def age(self, task: Task) -> float | None:
        """Say how many seconds ago a task that holds a slot was submitted, `None` if it holds none."""
        held = self._held.get(task.id)
        return None if held is None else self._now() - held.since

    def is_crowded(self, task: Task) -> bool:
        """Whether a submit waits for the slot that a task holds."""
        held = self._held.get(task.id)
        return held is not None and bool(self._queues[held.claim.pool.name].waiting)

    def leave(self, task: Task) -> None:
        """Note that the client no longer waits for a task; it keeps its slot until a poll shows that it has ended."""
        with self._lock:
            self._attended.discard(task.id)

    def unattended(self, pool: Pool) -> Task | None:
        """Name a task of the pool that the client left, each in turn, so that what needs a slot can poll it."""
        with self._lock:
            for key, held in self._held.items():
                if held.claim.pool.name == pool.name and key not in self._attended:
                    self._held[key] = self._held.pop(key)
                    return held.task
        return None

    def _wake_settlers(self) -> None:
        with self._lock:
            if not self._settlers or sum(queue.busy for queue in self._queues.values()) > len(self._held):
                return
            settlers, self._settlers = self._settlers, []
        for wake in settlers:
            # The event loop that waited may be gone.
            with suppress(RuntimeError):
                wake()

    def _may_grant(self, queue: _Queue) -> bool:
        # After a cool-down one submit goes first; the rest follow when the service has taken it.
        return not queue.cooling or (self._now() >= queue.until and queue.probe is None)
