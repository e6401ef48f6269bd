"""A bell that shortens a pause: whoever waits for a task naps, and whoever hears of its end rings.

A bell carries no news, only "look now".  So a ring that is lost, forged, doubled or late can change when somebody looks
and never what they see.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

Wake = Callable[[], object]
# Rings that nobody was napping for; the oldest are forgotten, which costs their tasks one full pause.
REMEMBERED = 10_000


class Wakeup:
    """One bell for all tasks of a process; safe between threads and event loops.

    A ring wakes everybody who naps for that task.  If nobody does, the next nap for it returns at once.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._lock = threading.Lock()
        self._rung: OrderedDict[str, None] = OrderedDict()
        self._nappers: dict[str, list[Wake]] = {}

    def __repr__(self) -> str:
        return f"Wakeup({len(self._nappers)} tasks waited for, {len(self._rung)} rings remembered)"

    def ring(self, task_id: str) -> None:
        """Wake whoever naps for this task, or let the next nap for it return at once."""
        with self._lock:
            nappers = self._nappers.pop(task_id, [])
            if not nappers:
                self._rung[task_id] = None
                self._rung.move_to_end(task_id)
                if len(self._rung) > self._remembered:
                    self._rung.popitem(last=False)
        for wake in nappers:
            wake()

    def nap(self, task_id: str, seconds: float) -> None:
        """Block this thread for so many seconds, or until the bell is rung for this task."""
        woken = threading.Event()
        with self._listening(task_id, woken.set) as rung:
            if not rung:
                woken.wait(seconds)

    async def nap_async(self, task_id: str, seconds: float) -> None:
        """Let so many seconds pass on the running event loop, or fewer if the bell is rung for this task."""
        import asyncio  # noqa: PLC0415  (a blocking client never needs it)

        woken, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            # The ring may come from another thread, and later than the end of this loop.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(woken.set)

        with self._listening(task_id, wake) as rung, suppress(TimeoutError):
            if not rung:
                await asyncio.wait_for(woken.wait(), seconds)

    @contextmanager
    def _listening(self, task_id: str, wake: Wake) -> Generator[bool]:
        """Yield whether the bell was rung already; listen until the end of the block if not."""
        with self._lock:
            rung = task_id in self._rung
            self._rung.pop(task_id, None)
            if not rung:
                self._nappers.setdefault(task_id, []).append(wake)
        try:
            yield rung
        finally:
            with self._lock:
                nappers = self._nappers.get(task_id, [])
                if wake in nappers:
                    nappers.remove(wake)
                if not nappers:
                    self._nappers.pop(task_id, None)
