"""A dictionary that keeps the newest entries only, so that what arrives without end takes bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(OrderedDict[K, V]):
    """At most `most` entries, in the order in which they were last put; not safe for threads without a lock."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def put(self, key: K, value: V) -> V | None:
        """Set an entry as the newest one, and return the value that was dropped for it, if any."""
        self[key] = value
        self.move_to_end(key)
        return self.popitem(last=False)[1] if len(self) > self.most else None
