"""Whether webhooks can be counted on, learned from which comes first: the webhook, or a poll that sees the end."""

from __future__ import annotations

import threading

# After this many endings in a row that a poll saw first, webhooks are not waited for until one arrives again.
MISSES = 3


class WebhookReliability:
    """Counts how many tasks in a row ended without their webhook; one for each client, safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._missed = 0

    def __repr__(self) -> str:
        return f"WebhookReliability({self._missed} webhooks missed in a row)"

    @property
    def is_trusted(self) -> bool:
        """Whether polls may stand behind the webhook; otherwise a task is polled as if it had none."""
        return self._missed < MISSES

    def note_ending(self, *, announced: bool) -> None:
        """Note that a task ended, and whether its webhook came before a poll saw it."""
        with self._lock:
            self._missed = 0 if announced else self._missed + 1
