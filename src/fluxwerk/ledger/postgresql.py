"""PostgreSQL behind the same port as SQLite: a pool of connections, one transaction for each thread at a time.

The SQL is what both understand, with named parameters; only their writing differs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fluxwerk.errors import ConflictError, InvalidUsageError, StorageError
from fluxwerk.ledger.database import DatabaseError, Row, Statement, Transaction, UnknownCommitError, Values

T = TypeVar("T")
PACKAGES_OF_FLEET = "pip install 'fluxwerk[fleet]'"
SCHEMES = ("postgresql", "postgres")
UNREADABLE_ADDRESS = (
    "The address of the database cannot be read: it has an option that PostgreSQL does not know, or a character that "
    "has to be written as its code. Write postgresql://user:password@host:5432/name, and %25 for %, %2F for /, %40 for "
    "@ and %3A for : within user and password."
)
OLDEST_SERVER = 150_000
# How many connections one process has at most, and how long a statement waits for one, in seconds.
CONNECTIONS = 16
CONNECTION_TIMEOUT = 5.0
# Seconds after which the server ends a transaction whose process is silent, so that others get what it has locked: the
# process was stopped, or its network is cut.
SILENT_SECONDS = 10.0
# How libpq notices within seconds that a server cannot be reached any more; the system would take two hours.
NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# The same for the server, whose connections are few; PostgreSQL ignores the last three where the socket is a file.
SESSION = """
    select set_config('idle_in_transaction_session_timeout', %(silent)s, false),
        set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
        set_config('tcp_keepalives_count', '3', false)
"""
# A colon begins a parameter, except in a cast.
PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")


class PostgresDatabase:
    """A pool of connections to one database; raises `InvalidUsageError` for an address that is none.

    `DatabaseError` means that the database cannot be reached or asked now, and that nothing has happened;
    `UnknownCommitError` that it was lost while it committed.
    """

    blocks = True

    def __init__(
        self,
        url: str,
        connections: int = CONNECTIONS,
        timeout: float = CONNECTION_TIMEOUT,
        silent: float = SILENT_SECONDS,
    ) -> None:
        try:
            import psycopg  # noqa: PLC0415  (an extra)
            from psycopg.rows import dict_row  # noqa: PLC0415
            from psycopg_pool import ConnectionPool, PoolTimeout  # noqa: PLC0415
        except ModuleNotFoundError:
            raise InvalidUsageError(f"PostgreSQL needs more packages: {PACKAGES_OF_FLEET}") from None
        self.url = url
        self.path = shown(url)
        try:
            conninfo = with_network(url)
            check_port(url)
        except (psycopg.ProgrammingError, ValueError):
            # Their messages quote the address, and a password with it.
            raise InvalidUsageError(UNREADABLE_ADDRESS) from None
        silenced = psycopg.errors.IdleInTransactionSessionTimeout
        broken = (psycopg.OperationalError, psycopg.InterfaceError, silenced)
        self._lost: tuple[type[Exception], ...] = (*broken, PoolTimeout)
        self._errors: tuple[type[Exception], ...] = (psycopg.Error, PoolTimeout)
        self._conflicts: tuple[type[Exception], ...] = (psycopg.IntegrityError,)
        self._waited: type[Exception] = psycopg.errors.LockNotAvailable
        # Another release changed the tables below a statement that this connection has prepared.
        self._outdated: type[Exception] = psycopg.errors.FeatureNotSupported
        self._connections = connections
        self._open = threading.local()

        def configure(connection: Any) -> None:
            connection.execute(SESSION, session_values(silent))

        self._pool: Any = ConnectionPool(
            conninfo,
            min_size=1,
            max_size=connections,
            timeout=timeout,
            kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 2},
            configure=configure,
            open=False,
        )
        self._pool.open()
        try:
            self._check_server()
        except BaseException:
            self._pool.close(0)
            raise

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """Begin a transaction; what it changes is locked for others row by row."""
        joined: _Postgres | None = getattr(self._open, "transaction", None)
        if joined is not None:
            yield joined
            return
        connection = self._begun()
        self._open.transaction = _Postgres(connection)
        try:
            with self._explained():
                yield self._open.transaction
            self._commit(connection)
        except BaseException as error:
            self._roll_back(connection)
            if isinstance(error.__cause__, self._outdated):
                connection.close()
            raise
        finally:
            self._open.transaction = None
            self._pool.putconn(connection)

    @contextmanager
    def read(self) -> Generator[Transaction]:
        """Begin a transaction that sees one moment of the database."""
        with self.write() as transaction:
            transaction.run("set transaction isolation level repeatable read read only")
            yield transaction

    def ask(self, sql: str, **values: Any) -> list[Row]:
        """Answer one statement; it joins the transaction that is open in this thread."""
        joined: _Postgres | None = getattr(self._open, "transaction", None)
        if joined is not None:
            return joined.all(sql, **values)
        return self._ask(lambda connection: connection.execute(translate(sql), values).fetchall())

    def ask_together(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Answer statements that wait for nothing from each other, in one exchange."""
        joined: _Postgres | None = getattr(self._open, "transaction", None)
        if joined is not None:
            return joined.together(statements)
        return self._ask(lambda connection: _together(connection, statements))

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def _ask(self, question: Callable[[Any], list[T]]) -> list[T]:
        with self._explained():
            # A connection may have died in the pool; a question may be put twice.
            for attempt in range(self._connections + 1):
                connection = self._pool.getconn()
                try:
                    rows = question(connection)
                except self._lost:
                    if not connection.broken or attempt == self._connections:
                        raise
                except self._outdated:
                    connection.close()
                    if attempt == self._connections:
                        raise
                except self._errors:
                    # The driver may believe that a statement is prepared which failed before it was.
                    connection.close()
                    raise
                else:
                    return rows
                finally:
                    self._pool.putconn(connection)
        raise AssertionError

    def _begun(self) -> Any:
        """Take a connection and begin; one that died in the pool makes room for the next."""
        with self._explained():
            for attempt in range(self._connections + 1):
                connection = self._pool.getconn()
                try:
                    connection.execute("begin")
                except self._lost:
                    self._pool.putconn(connection)
                    if attempt == self._connections:
                        raise
                else:
                    return connection
        raise AssertionError

    def _commit(self, connection: Any) -> None:
        try:
            connection.execute("commit")
        except self._waited as error:
            # Jobs give notices, and commits with notices wait for each other: the server itself has rolled back.
            raise self._unusable(error) from error
        except self._lost as error:
            raise UnknownCommitError(
                f"The database {self.path} was lost during a commit ({_first_line(error)})."
            ) from None

    def _roll_back(self, connection: Any) -> None:
        if not connection.broken:
            try:
                connection.execute("rollback")
            except self._lost:
                # The server rolls back what a lost connection had begun.
                return

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except self._conflicts:
            raise ConflictError("Another process has written the same at this moment; try it again.") from None
        except self._errors as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> DatabaseError:
        return DatabaseError(f"The database {self.path} cannot be used ({_first_line(error)}).")

    def _check_server(self) -> None:
        try:
            version = int(self.ask("select current_setting('server_version_num') as version")[0]["version"])
        except StorageError as error:
            raise InvalidUsageError(f"{error} Check its address, and that it accepts connections.") from None
        if version < OLDEST_SERVER:
            raise InvalidUsageError(
                f"The database {self.path} is PostgreSQL {version // 10_000}; at least 15 is needed."
            )


class _Postgres:
    """A transaction on a connection of PostgreSQL."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def now(self) -> float:
        """Seconds since 1970 on the server's clock, the same throughout the transaction."""
        found = self._connection.execute("select extract(epoch from now())::float8 as now").fetchone()
        return float(found["now"])

    def run(self, sql: str, **values: Any) -> int:
        """Execute one statement and return how many rows it changed."""
        return int(self._connection.execute(translate(sql), values).rowcount)

    def run_many(self, sql: str, rows: Iterable[Values]) -> None:
        """Execute one statement for each row of values."""
        with self._connection.cursor() as cursor:
            cursor.executemany(translate(sql), list(rows))

    def all(self, sql: str, **values: Any) -> list[Row]:
        """Return every row of the answer."""
        rows: list[Row] = self._connection.execute(translate(sql), values).fetchall()
        return rows

    def one(self, sql: str, **values: Any) -> Row | None:
        """Return the first row of the answer, if there is one."""
        row: Row | None = self._connection.execute(translate(sql), values).fetchone()
        return row

    def together(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Execute statements in one exchange, and return their rows in order."""
        return _together(self._connection, statements)


def _together(connection: Any, statements: Sequence[Statement]) -> list[list[Row]]:
    if len(statements) == 1:
        # A pipeline of one costs twice as much.
        return [_rows(connection.execute(translate(sql), values)) for sql, values in statements]
    sent: list[Any] = []
    # Raised after the end of the pipeline, which logs an error that it is left by.
    first: Exception | None = None
    try:
        with connection.pipeline():
            try:
                sent += [connection.execute(translate(sql), values) for sql, values in statements]
            except Exception as error:  # noqa: BLE001  (raised below)
                first = error
    except Exception:
        if first is None:
            raise
    if first is not None:
        raise first
    return [_rows(one) for one in sent]


def _rows(cursor: Any) -> list[Row]:
    # What changes rows without returning them has no first row; to ask for a description describes each column.
    return [] if cursor.rownumber is None else cursor.fetchall()


def is_address(text: str) -> bool:
    """Whether a text is the address of a PostgreSQL database."""
    return urlsplit(text).scheme in SCHEMES


def shown(url: str) -> str:
    """Write a database's address without user, password and options."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "postgresql://…"
    where = f"{parts.hostname or 'local'}:{parts.port}" if parts.port else parts.hostname or "local"
    return f"postgresql://{where}{parts.path}"


def check_port(url: str) -> None:
    """Raise `ValueError` for a port that is none: the driver finds out later, and names it, if a password has a slash.

    Several hosts, each with its port, are the driver's to read.
    """
    parts = urlsplit(url)
    if "," not in parts.netloc:
        _ = parts.port


def with_network(url: str) -> str:
    """Add to an address how soon a lost network is noticed; what the address says itself stays."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415  (an extra)

    return make_conninfo(url, **{name: value for name, value in NETWORK.items() if name not in conninfo_to_dict(url)})


def session_values(silent: float = SILENT_SECONDS) -> dict[str, str]:
    """Write the values of `SESSION`."""
    return {"silent": str(round(silent * 1000))}


@lru_cache(maxsize=512)
def translate(sql: str) -> str:
    """Write named parameters as the driver of PostgreSQL wants them."""
    return PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%"))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
