"""A storage in memory, for a server that keeps nothing beyond its process."""

from __future__ import annotations

from threading import Lock


class MemoryStorage:
    """Objects by name, as long as the process lives; `held` is how many bytes they have together."""

    blocks = False

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = Lock()
        self.held = 0

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        """Keep the bytes."""
        if name in self._objects and not overwrite:
            raise FileExistsError(name)
        with self._lock:
            self.held += len(data) - len(self._objects.get(name, b""))
            self._objects[name] = data
        return name

    def get(self, name: str) -> bytes | None:
        """Return what is kept under a name."""
        return self._objects.get(name)

    def remove(self, name: str) -> None:
        """Let an object go, if it is there."""
        with self._lock:
            self.held -= len(self._objects.pop(name, b""))

    def size(self, name: str) -> int | None:
        """Tell how many bytes are kept under a name."""
        data = self._objects.get(name)
        return None if data is None else len(data)

    def link(self, name: str, seconds: float) -> None:
        """Make none: memory answers to nobody."""

    def check(self) -> None:
        """Memory always takes what it is given."""

    def check_name(self, name: str) -> None:
        """Every name will do."""
