"""What one client knows of an account that nobody else uses: a balance, what was charged since, and its doubts."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from decimal import Decimal

from fluxwerk.errors import InDoubtError
from fluxwerk.protocol import witness
from fluxwerk.protocol.witness import MICRO, Doubt, Explanation, Verdict
from fluxwerk.types import Task

NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class SettledDoubt:
    """What became of a submit in doubt.

    `task` is its task, if the server kept its key.  `charged` of false says that it may be submitted again, of true
    that it was charged and its image is lost, of `None` that nothing is proved; `text` gives the arithmetic.
    """

    charged: bool | None
    task: Task | None = None
    text: str = ""


class Books:
    """The money of one client; safe to share between threads.

    `moved` counts whatever may change the balance: between two equal readings it must stand still.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._balance: Decimal | None = None
        self._known = NOTHING
        self._submits = 0
        self._tasks: set[str] = set()
        self._doubts: dict[int, Doubt] = {}
        self._number = 0
        self._outcomes: dict[int, bool] = {}
        self.moved = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a balance to compare a later one with."""
        return self._balance is not None

    @property
    def is_quiet(self) -> bool:
        """Whether no submit is on its way, and no task in flight."""
        return not self._submits and not self._tasks

    def open(self, balance: Decimal) -> None:
        """Note the balance before the first submit."""
        with self._lock:
            if self._balance is None and self.is_quiet:
                # Doubts from before are on this balance already.
                self._doubts.clear()
                self._balance, self._known = balance, NOTHING

    def begin(self) -> None:
        """Note that a submit is about to leave."""
        with self._lock:
            self._submits += 1
            self.moved += 1

    def withdraw(self) -> None:
        """Note that a submit was certainly not taken."""
        with self._lock:
            self._submits -= 1
            self.moved += 1

    def accept(self, task: Task) -> None:
        """Note what a submit has become."""
        with self._lock:
            self._submits -= 1
            self._tasks.add(task.id)
            self.moved += 1

    def end(self, task: Task, cost: Decimal | None) -> None:
        """Note how much a task has cost in the end; where nobody says so, no balance proves anything."""
        with self._lock:
            if task.id in self._tasks:
                self._tasks.remove(task.id)
                self.moved += 1
                if cost is None:
                    self._balance = None
                else:
                    self._known += cost

    def doubt(self, error: InDoubtError, estimate: Decimal | None) -> None:
        """Note a submit in doubt, and what it should cost."""
        with self._lock:
            self._submits -= 1
            self.moved += 1
            error.number = self._number = self._number + 1
            if self._balance is not None:
                cost = None if estimate is None else int(estimate * MICRO)
                self._doubts[error.number] = Doubt(error.number, cost)

    def outcome(self, error: InDoubtError) -> bool | None:
        """Say whether a doubt that was settled was charged; `None` if it is not settled."""
        return self._outcomes.get(error.number)

    def weigh(self, balance: Decimal, moved: int) -> Explanation | None:
        """Settle all doubts that a balance explains; `None` if it was read while something moved, or is the first."""
        with self._lock:
            if moved != self.moved or not self.is_quiet or self._balance is None:
                return None
            difference = int((self._balance - balance - self._known) * MICRO)
            said = witness.judge(difference, list(self._doubts.values()))
            if said.verdict is Verdict.SETTLED:
                self._outcomes |= dict.fromkeys(said.charged, True) | dict.fromkeys(said.not_charged, False)
                self._doubts.clear()
                self._balance, self._known = balance, NOTHING
            return said
