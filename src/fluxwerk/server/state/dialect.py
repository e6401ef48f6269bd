"""What the state needs of a database beyond transactions, and SQLite's side of it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger.database import Database, DatabaseError, SQLiteDatabase, Statement, Transaction

MEMORY = ":memory:"
# The name of the database in a folder.
DATABASE = "state.db"
# One server has the folder to itself, and commands of its operator write beside it.  A commit is in the log at once,
# and `Flush` sees to it that the log is on the disk before a submit is answered.  What is deleted is overwritten, also
# where SQLite was built to leave it.
STATE_PRAGMAS = (
    "journal_mode=wal",
    "synchronous=normal",
    "foreign_keys=on",
    "secure_delete=on",
    "wal_autocheckpoint=4000",
)
# Seconds; whoever has the folder keeps it until it ends, and nobody writes for long.
FOLDER_TIMEOUT, WRITE_TIMEOUT = 0.5, 5.0


class StateDatabase(Database, Protocol):
    """A database with tables of its own making.

    `number` is the type of a column that counts its rows, `skip_locked` what lets several processes take different rows
    of a query, `hurry` what lets a transaction fail soon where others hold what it needs, until `calm`, and `path` how
    errors name the place.
    """

    path: str
    number: str
    skip_locked: str
    hurry: tuple[Statement, ...]
    calm: tuple[Statement, ...]
    among: str

    def pack(self, texts: Sequence[str]) -> object:
        """Write texts as the value that a column is to be `among`, called `:ids`."""
        ...

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
    """SQLite in a file, or in memory, for one server; raises `DatabaseError` for whatever SQLite does not take."""

    number = "integer primary key autoincrement"
    skip_locked = ""
    # Whoever writes is alone.
    hurry: tuple[Statement, ...] = ()
    calm: tuple[Statement, ...] = ()
    among = "in (select value from json_each(:ids))"

    def __init__(self, path: str | os.PathLike[str] = MEMORY, clock: Callable[[], float] | None = None) -> None:
        super().__init__(path, clock, pragmas=STATE_PRAGMAS, timeout=WRITE_TIMEOUT, explained=_unwritable)

    def pack(self, texts: Sequence[str]) -> object:
        """Write texts as JSON."""
        return json.dumps(list(texts))

    def lock_schema(self, transaction: Transaction) -> None:
        """Nothing more: whoever writes is alone."""


class FolderLock:
    """Keeps other servers out of a folder until it is closed, or the process ends in whatever way.

    It is a database of its own, since the locks of SQLite are those that every system has.
    """

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, timeout=FOLDER_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("begin exclusive")
        except sqlite3.Error as error:
            self._connection.close()
            hint = "does another server use it?" if "locked" in str(error) else "name another folder"
            raise InvalidUsageError(f"The folder {file.parent} cannot be locked ({error}); {hint}") from None

    def close(self) -> None:
        """Let another server in."""
        self._connection.close()


@contextmanager
def _unwritable(path: str) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DatabaseError(f"The state in {path} cannot be written ({error}).") from error
