"""What the state needs of a database beyond transactions, and SQLite's side of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from fluxwerk.errors import StorageError
from fluxwerk.ledger.database import Database, SQLiteDatabase, Transaction

MEMORY = ":memory:"
# One process has the file to itself.  A commit is in the log at once, and `Flush` sees to it that the log is on the
# disk before a submit is answered.
STATE_PRAGMAS = (
    "locking_mode=exclusive",
    "journal_mode=wal",
    "synchronous=normal",
    "foreign_keys=on",
    "wal_autocheckpoint=4000",
)
# Seconds; whoever has the folder keeps it until it ends.
FOLDER_TIMEOUT = 0.5


class StateDatabase(Database, Protocol):
    """A database with tables of its own making.

    `number` is the type of a column that counts its rows, `skip_locked` what lets several processes take different rows
    of a query, and `path` how errors name the place.
    """

    path: str
    number: str
    skip_locked: str

    def script(self, sql: str) -> None:
        """Execute the statements of a migration, inside the transaction that is open."""
        ...

    def tables(self) -> set[str]:
        """Name the tables that are there."""
        ...

    def lock_schema(self, transaction: Transaction) -> None:
        """Let no other process change the tables until the transaction ends."""
        ...


class StateFile(SQLiteDatabase):
    """SQLite in a file, or in memory, for one process; raises `StorageError` for whatever SQLite does not take."""

    number = "integer primary key autoincrement"
    skip_locked = ""

    def __init__(self, path: str | os.PathLike[str] = MEMORY, clock: Callable[[], float] | None = None) -> None:
        super().__init__(path, clock, pragmas=STATE_PRAGMAS, timeout=FOLDER_TIMEOUT, explained=_unwritable)

    def lock_schema(self, transaction: Transaction) -> None:
        """Nothing more: whoever writes is alone."""


@contextmanager
def _unwritable(path: str) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"The state in {path} cannot be written ({error}).") from error
