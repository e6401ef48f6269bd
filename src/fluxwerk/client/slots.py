"""Who may submit now: as many tasks in flight as the account has slots, however many threads or coroutines ask.

A slot belongs to the remote task, not to whoever waits for it: it is held from before the submit until a poll has said
that the task has ended, even when nobody waits any more.  No task is believed in for ever: one that the service does
not know, and one that nobody could ask about for an hour, keep no slot.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fluxwerk.protocol import retry
from fluxwerk.types import Outcome, Pool, Status, Task

# No task runs for so many seconds.
LONGEST_TASK = 3600.0


@dataclass(eq=False, slots=True)
class SlotClaim:
    """One claim to a slot: waiting until `granted`, then held for a submit and for the task that comes of it."""

    pool: Pool
    wake: Callable[[], object] = field(repr=False)
    granted: bool = False


@dataclass(slots=True)
class _Queue:
    """What is known of one pool: seats granted, seats waiting, and a cool-down until a moment on the clock."""

    busy: int = 0
    waiting: deque[SlotClaim] = field(default_factory=deque[SlotClaim])
    cooling: bool = False
    until: float = 0.0
    probe: SlotClaim | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """A seat that became a task, and since when."""

    seat: SlotClaim
    task: Task
    since: float


class ClientSlots:
    """The slots of one account in one process; safe to share between threads and event loops.

    `most` replaces the catalogue's number for every pool, for a server of one's own.  `now` tells the time in seconds.
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

    def ask(self, pool: Pool, wake: Callable[[], object]) -> SlotClaim:
        """Claim a slot in the order of asking; `wake` is called, from any thread, when the seat is granted."""
        seat = SlotClaim(pool, wake)
        with self._lock:
            queue = self._queues.setdefault(pool.name, _Queue())
            queue.waiting.append(seat)
        self.nudge(pool)
        return seat

    def nudge(self, pool: Pool) -> None:
        """Grant what can be granted by now; a cool-down ends by time alone, so whoever waits looks again."""
        granted: list[SlotClaim] = []
        with self._lock:
            queue = self._queues[pool.name]
            while queue.waiting and queue.busy < self.most(pool) and self._may_grant(queue):
                seat = queue.waiting.popleft()
                seat.granted = True
                queue.busy += 1
                queue.probe = seat if queue.cooling else None
                granted.append(seat)
        for seat in granted:
            try:
                seat.wake()
            except RuntimeError:
                # Its event loop is gone, and nobody there can use the seat.
                self.give_back(seat)

    def hold(self, seat: SlotClaim, task: Task) -> None:
        """Tie a seat to the task that its submit became; a cool-down that this submit probed is over."""
        with self._lock:
            self._held[task.id] = _Held(seat, task, self._now())
            self._attended.add(task.id)
            queue = self._queues[seat.pool.name]
            if queue.probe is seat:
                queue.cooling, queue.probe = False, None
        self.nudge(seat.pool)
        self._wake_settlers()

    def give_back(self, seat: SlotClaim, cool: float | None = None) -> None:
        """Return a seat whose submit did not become a task, or that is not wanted any more.

        `cool` are the seconds for which nobody of this pool shall submit: the service said that it is too busy.
        """
        with self._lock:
            queue = self._queues[seat.pool.name]
            if seat.granted:
                queue.busy -= 1
            else:
                queue.waiting.remove(seat)
            if queue.probe is seat:
                queue.probe = None
            if cool is not None:
                queue.cooling, queue.until = True, max(queue.until, self._now() + cool)
        self.nudge(seat.pool)
        self._wake_settlers()

    def settle(self, wake: Callable[[], object]) -> None:
        """Call `wake`, from any thread, once no submit is on its way; those that wait for a slot are none."""
        with self._lock:
            self._settlers.append(wake)
        self._wake_settlers()

    def ended(self, task: Task) -> None:
        """Free the slot of a task that has ended; a task that holds none changes nothing."""
        with self._lock:
            held = self._held.pop(task.id, None)
            self._attended.discard(task.id)
            if held:
                self._queues[held.seat.pool.name].busy -= 1
        if held:
            self.nudge(held.seat.pool)

    def looked(self, task: Task, status: Status | None) -> None:
        """Note what a look at a task that nobody waits for has shown, or `None` for nothing: it frees what is over."""
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
        """Whether someone waits for the slot that a task holds."""
        held = self._held.get(task.id)
        return held is not None and bool(self._queues[held.seat.pool.name].waiting)

    def leave(self, task: Task) -> None:
        """Note that nobody waits for a task any more; it keeps its slot until someone learns that it has ended."""
        with self._lock:
            self._attended.discard(task.id)

    def unattended(self, pool: Pool) -> Task | None:
        """Name a task of the pool for which nobody waits, each in turn, so that whoever wants its slot can look."""
        with self._lock:
            for key, held in self._held.items():
                if held.seat.pool.name == pool.name and key not in self._attended:
                    self._held[key] = self._held.pop(key)
                    return held.task
        return None

    def _wake_settlers(self) -> None:
        with self._lock:
            if not self._settlers or sum(queue.busy for queue in self._queues.values()) > len(self._held):
                return
            settlers, self._settlers = self._settlers, []
        for wake in settlers:
            # The event loop of whoever waited may be gone.
            with suppress(RuntimeError):
                wake()

    def _may_grant(self, queue: _Queue) -> bool:
        # After a cool-down one submit goes first; the rest follow when the service has taken it.
        return not queue.cooling or (self._now() >= queue.until and queue.probe is None)
