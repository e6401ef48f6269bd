"""The database of a state for commands, which open it beside the servers that use it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.server.state.dialect import DATABASE, StateDatabase, StateFile
from fluxwerk.server.state.migrations import prepare


@contextmanager
def open_shared(folder: str | None, url: str | None) -> Generator[StateDatabase]:
    """Open the database of a folder or at a URL, and make its tables if it is new; raises `InvalidUsageError`."""
    database = _at(url) if url else _in(Path(folder or ""))
    try:
        prepare(database)
        yield database
    finally:
        database.close()


def _in(folder: Path) -> StateDatabase:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        fault = Fault("--state", str(folder), f"cannot be made: {error.strerror}", "name another folder")
        raise InvalidUsageError("", faults=[fault]) from None
    return StateFile(folder / DATABASE)


def _at(url: str) -> StateDatabase:
    from fluxwerk.server.state.fleet import FleetDatabase  # noqa: PLC0415  (an extra)

    return FleetDatabase(url)
