"""A storage in memory that refuses what a test tells it to."""

from __future__ import annotations

from fluxwerk.errors import StorageError
from fluxwerk.server.state.memory import MemoryStorage


class FrailStorage(MemoryStorage):
    """A storage that refuses what `refuses` names: put or remove, and the words that a name then has."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: tuple[str, str] | None = None

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        self._meet("put", name)
        return super().put(name, data, overwrite=overwrite)

    def remove(self, name: str) -> None:
        self._meet("remove", name)
        super().remove(name)

    def names(self) -> list[str]:
        return sorted(self._objects)

    def _meet(self, what: str, name: str) -> None:
        if self.refuses and self.refuses[0] == what and self.refuses[1] in name:
            raise StorageError(f"{name} is refused.")
