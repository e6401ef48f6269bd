"""What a gateway must not forget: for each order whether its submit left, and the task that came of it.

The journal is a port: in memory for one process, rows beside the tasks where the state outlives it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

from fluxwerk.types import Pool, Task


@dataclass(frozen=True, slots=True)
class UpstreamEntry:
    """How far an order is at the service: its submit may have left, and `task` is what the service named.

    `intended` and `submitted` are when that was, in seconds since 1970; `doubt` says why a submit without a task may
    have been charged.  A `foreign` one left on another account, whose keys this one cannot repeat.
    """

    pool: str
    intended: float
    task: Task | None = None
    submitted: float | None = None
    doubt: str | None = None
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamResult:
    """What the service said at a task's end: the settled `cost` in credits, seed and prompt, where it named them.

    A service that is a fluxwerk server also names the `engine` that made the image.
    """

    cost: Decimal | None = None
    seed: int | None = None
    prompt: str | None = None
    engine: str | None = None


class UpstreamJournal(Protocol):
    """The moves of an order at the service; each is written down whole before the next thing happens.

    A slot belongs to the account at the service: all gateways with one journal and one account share it.
    """

    @property
    def account(self) -> str:
        """Which account the slots belong to, by a name that is no key."""
        ...

    async def find(self, order: str) -> UpstreamEntry | None:
        """Return what is known of an order, `None` if no submit of it ever left."""
        ...

    async def intend(self, order: str, pool: Pool) -> bool:
        """Take a slot and write down that a submit is about to leave; `False` if no slot is free."""
        ...

    async def flush(self) -> None:
        """Come back when what was written so far would survive a power cut."""
        ...

    async def withdraw(self, order: str) -> None:
        """Note that the submit certainly was not accepted, and give its slot back."""
        ...

    async def accept(self, order: str, task: Task) -> None:
        """Note the task that the service named; it keeps the slot."""
        ...

    async def doubt(self, order: str, reason: str) -> None:
        """Note that the submit was not answered and may have been charged; a second time changes nothing."""
        ...

    async def end(self, order: str, result: UpstreamResult) -> None:
        """Note that the task has ended at the service, and give its slot back; a second time changes nothing."""
        ...


class MemoryJournal:
    """The journal of one process, which forgets with it."""

    account = ""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._entries: dict[str, UpstreamEntry] = {}
        self._busy: Counter[str] = Counter()

    async def find(self, order: str) -> UpstreamEntry | None:
        """Return what is known of an order."""
        return self._entries.get(order)

    async def intend(self, order: str, pool: Pool) -> bool:
        """Take a slot, if one is free."""
        if self._busy[pool.name] >= pool.slots:
            return False
        self._busy[pool.name] += 1
        self._entries[order] = UpstreamEntry(pool.name, self._now())
        return True

    async def flush(self) -> None:
        """Nothing survives the process."""

    async def withdraw(self, order: str) -> None:
        """Forget the intent."""
        self._busy[self._entries.pop(order).pool] -= 1

    async def accept(self, order: str, task: Task) -> None:
        """Keep the task."""
        self._entries[order] = replace(self._entries[order], task=task, submitted=self._now())

    async def doubt(self, order: str, reason: str) -> None:
        """Keep the reason; whatever the service made of the submit no longer counts as a slot."""
        entry = self._entries[order]
        if entry.doubt is None:
            self._entries[order] = replace(entry, doubt=reason)
            self._busy[entry.pool] -= 1

    async def end(self, order: str, result: UpstreamResult) -> None:  # noqa: ARG002  (nobody asks for it here)
        """Forget the order."""
        entry = self._entries.pop(order, None)
        if entry:
            self._busy[entry.pool] -= 1

    def doubts(self) -> dict[str, str]:
        """List the orders in doubt, each with its reason."""
        return {order: entry.doubt for order, entry in self._entries.items() if entry.doubt is not None}
