"""The database: transactions, its clock, and its errors as our errors.

The SQL of this package is what SQLite and PostgreSQL share: named parameters, `on conflict`, `returning`, partial
indexes.  Writers take turns (SQLite: `begin immediate`; PostgreSQL: an advisory lock), so a count made in a
transaction still holds when it commits.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from fluxwerk.errors import ConflictError, InvalidUsageError, StorageError

Row: TypeAlias = Mapping[str, Any]
Values: TypeAlias = Mapping[str, Any]
# Turns the errors of a database at a path into ours.
Explained: TypeAlias = Callable[[str], AbstractContextManager[None]]

SQLITE_HEADER = b"SQLite format 3\0"
NOW = "select (julianday('now') - 2440587.5) * 86400.0 as now"
LOCK_TIMEOUT = 60.0
# Every commit is on the disk before it counts; the log is folded into the file after some 40 MB, not 4.
PRAGMAS = ("journal_mode=wal", "synchronous=full", "foreign_keys=on", "wal_autocheckpoint=10000", "cache_size=-32768")
# What SQLite says when the disk, not the program, is at fault.
DISK_ERRORS = ("readonly", "disk", "full", "unable to open", "locked", "i/o")


class DatabaseError(StorageError):
    """The database, and no storage of files, cannot be read or written now."""


class UnknownCommitError(DatabaseError):
    """The database was lost while a transaction committed: it may have happened or not."""


class Statement(NamedTuple):
    """One statement with its values."""

    sql: str
    values: Values = MappingProxyType({})


class Transaction(Protocol):
    """The statements between begin and commit."""

    def now(self) -> float:
        """Seconds since 1970 on the database's clock, the same throughout the transaction."""
        ...

    def run(self, sql: str, **values: Any) -> int:
        """Execute one statement and return how many rows it changed."""
        ...

    def run_many(self, sql: str, rows: Iterable[Values]) -> None:
        """Execute one statement for each row of values."""
        ...

    def all(self, sql: str, **values: Any) -> list[Row]:
        """Return every row of the answer."""
        ...

    def one(self, sql: str, **values: Any) -> Row | None:
        """Return the first row of the answer, if there is one."""
        ...

    def together(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Execute statements that do not need each other's answers, in one exchange, and return their rows in order."""
        ...


class Database(Protocol):
    """Where transactions come from; inside one, all methods join it.

    `blocks` says that a statement may wait for the network, so that an event loop has to ask in a thread.
    """

    blocks: bool

    def write(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that is the only writer until it commits; a context manager of `Transaction`."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that sees one moment of the database; a context manager of `Transaction`."""
        ...

    def ask(self, sql: str, **values: Any) -> list[Row]:
        """Return every row of the answer to one statement that stands by itself."""
        ...

    def ask_together(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Return the rows of questions that stand each by itself, asked in one exchange."""
        ...

    def close(self) -> None:
        """Close the database."""
        ...


class SQLiteDatabase:
    """One connection to one file, in write-ahead mode; threads take turns, and every commit is flushed.

    `clock` stands in for the database's clock in tests, `pragmas` for the settings, and `explained` turns SQLite's
    errors into ours.  As a ledger it raises `InvalidUsageError` for a file that is none, `StorageError` when the disk
    is full, read-only or gone.  `commits` counts the transactions that wrote.
    """

    blocks = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock: Callable[[], float] | None = None,
        *,
        pragmas: Iterable[str] = PRAGMAS,
        timeout: float = LOCK_TIMEOUT,
        explained: Explained | None = None,
    ) -> None:
        self.path = str(path)
        self.commits = 0
        self._lock = threading.RLock()
        self._open: _Sqlite | None = None
        self._clock = clock
        self._explained = explained or _explained
        if self.path != ":memory:":
            _create_private(Path(self.path))
        with self._explained(self.path):
            self._connection = sqlite3.connect(
                self.path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._connection.row_factory = sqlite3.Row
            try:
                for setting in pragmas:
                    self._connection.execute(f"pragma {setting}")
            except BaseException:
                self._connection.close()
                raise

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """Begin immediately: of all connections one writes."""
        with self._begun("begin immediate") as transaction:
            yield transaction
        self.commits += 1

    @contextmanager
    def read(self) -> Generator[Transaction]:
        """Begin a snapshot."""
        with self._begun("begin") as transaction:
            yield transaction

    def ask(self, sql: str, **values: Any) -> list[Row]:
        """Answer one statement; it joins the transaction that is open."""
        with self._lock:
            try:
                rows: list[Any] = self._connection.execute(sql, values).fetchall()
            except sqlite3.Error:
                # Explained only here, because questions are many and this costs as much as a short one.
                with self._explained(self.path):
                    raise
            return rows

    def ask_together(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Answer one statement after the other; nothing is gained without a network."""
        return [self.ask(sql, **values) for sql, values in statements]

    def script(self, sql: str) -> None:
        """Execute the statements of a migration, inside the transaction that is open."""
        for statement in statements(sql):
            self._connection.execute(statement)

    def tables(self) -> set[str]:
        """Name the tables that are there."""
        with self.read() as transaction:
            rows = transaction.all("select name from sqlite_master where type = 'table' and name not like 'sqlite%'")
        return {row["name"] for row in rows}

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _begun(self, begin: str) -> Generator[Transaction]:
        with self._lock:
            if self._open is not None:
                yield self._open
                return
            with self._explained(self.path):
                self._connection.execute(begin)
                self._open = _Sqlite(self._connection, self._clock)
                try:
                    yield self._open
                    self._connection.execute("commit")
                except BaseException:
                    # A full disk has rolled back by itself.
                    if self._connection.in_transaction:
                        self._connection.execute("rollback")
                    raise
                finally:
                    self._open = None


class _Sqlite:
    """A transaction on a connection of SQLite."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float] | None) -> None:
        self._connection = connection
        self._clock = clock
        self._now: float | None = None

    def now(self) -> float:
        if self._now is None:
            self._now = self._clock() if self._clock else float(self._connection.execute(NOW).fetchone()["now"])
        return self._now

    def run(self, sql: str, **values: Any) -> int:
        return self._connection.execute(sql, values).rowcount

    def run_many(self, sql: str, rows: Iterable[Values]) -> None:
        self._connection.executemany(sql, rows)

    def all(self, sql: str, **values: Any) -> list[Row]:
        rows: list[Any] = self._connection.execute(sql, values).fetchall()
        return rows

    def one(self, sql: str, **values: Any) -> Row | None:
        # Fetched to the end, since a `returning` writes only what is read.
        rows: list[Any] = self._connection.execute(sql, values).fetchall()
        return rows[0] if rows else None

    def together(self, statements: Sequence[Statement]) -> list[list[Row]]:
        return [self.all(sql, **values) for sql, values in statements]


def is_database(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an SQLite database, by its first bytes."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(SQLITE_HEADER)) == SQLITE_HEADER
    except OSError:
        return False


def _create_private(path: Path) -> None:
    """Make a new file readable to its owner alone: it holds prompts and links that open images.

    A file that is there is not touched: to close it would drop every lock of this process on it, and then another
    process takes itself for the last one and removes the write-ahead log under our feet.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StorageError(f"The ledger {path} cannot be opened: {error.strerror}.") from None


@contextmanager
def _explained(path: str) -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if not any(word in str(error).lower() for word in DISK_ERRORS):
            raise
        raise StorageError(
            f"The ledger {path} cannot be written ({error}); check the disk's free space and the file's rights. "
            "What is in it is safe, and `fluxwerk batch run` goes on from there."
        ) from None
    except sqlite3.IntegrityError:
        raise ConflictError(
            "Another process has written the same into the ledger at this moment; try it again."
        ) from None
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error) or "malformed" in str(error):
            raise InvalidUsageError(
                f"{path} is not a ledger, or is damaged ({error}); restore it, or name another file with --ledger."
            ) from None
        raise


def statements(sql: str) -> Generator[str]:
    """Split a migration into its statements."""
    statement = ""
    for part in sql.split(";")[:-1]:
        statement += f"{part};"
        # A semicolon in a comment or a text ends nothing.
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
