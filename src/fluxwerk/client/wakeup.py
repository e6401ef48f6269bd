"""What shortens a pause: one side waits for a task, and the other notifies it of the task's end.

A notification carries no news, only "look now".  So one that is lost, forged, doubled or late can change when a caller
looks and never what they see.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial

from fluxwerk.bounded import BoundedDict
from fluxwerk.drive import WALL, Listen, Wake

# Notifications that came before their wait; the oldest are forgotten, which costs their tasks one full pause.
REMEMBERED_WAKEUPS = 10_000


class Wakeup:
    """Wakes what waits for a task, for all tasks of a process; safe between threads and event loops.

    A notification ends every wait for that task.  If there is none, the next wait for it ends at once.
    """

    def __init__(self, remembered: int = REMEMBERED_WAKEUPS) -> None:
        self._lock = threading.Lock()
        self._notified: BoundedDict[str, None] = BoundedDict(remembered)
        self._waiting: dict[str, list[Wake]] = {}

    def __repr__(self) -> str:
        return f"Wakeup({len(self._waiting)} tasks waited for, {len(self._notified)} notifications remembered)"

    def notify(self, task_id: str) -> None:
        """End every wait for this task, or let the next one end at once."""
        with self._lock:
            waiting = self._waiting.pop(task_id, [])
            if not waiting:
                self._notified.put(task_id, None)
        for wake in waiting:
            # The event loop that waits may be gone.
            with suppress(RuntimeError):
                wake()

    def wait(self, task_id: str, seconds: float) -> None:
        """Block this thread for `seconds`, or until this task is notified."""
        WALL.sleep(seconds, self.listen(task_id))

    async def wait_async(self, task_id: str, seconds: float) -> None:
        """Let `seconds` pass on the running event loop, or fewer if this task is notified."""
        await WALL.sleep_async(seconds, self.listen(task_id))

    def listen(self, task_id: str) -> Listen:
        """Return what ends the wait of a clock when this task is notified."""
        return partial(self._listening, task_id)

    @contextmanager
    def _listening(self, task_id: str, wake: Wake) -> Generator[bool]:
        """Yield whether the task was notified already; call `wake` if it is until the end of the block."""
        with self._lock:
            notified = task_id in self._notified
            self._notified.pop(task_id, None)
            if not notified:
                self._waiting.setdefault(task_id, []).append(wake)
        try:
            yield notified
        finally:
            with self._lock:
                waiting = self._waiting.get(task_id, [])
                if wake in waiting:
                    waiting.remove(wake)
                if not waiting:
                    self._waiting.pop(task_id, None)
