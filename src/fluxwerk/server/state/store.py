"""Where the state is: a database for the rows, and a storage for images and inputs beside it.

An embedded server has its store to itself, in memory or in a folder.  A folder is its owner's alone: it holds prompts,
inputs and webhook secrets, but no key.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from fluxwerk import imagefile
from fluxwerk.errors import InvalidUsageError, StorageError
from fluxwerk.ledger.database import Row, Statement, Transaction
from fluxwerk.protocol.wire import dump
from fluxwerk.server.state.dialect import DATABASE, FolderLock, StateDatabase, StateFile
from fluxwerk.server.state.flush import Flush
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.migrations import prepare
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.storage import Folder, Storage

# Bytes that a probe writes: more than the slack of a page.
PROBE_BYTES = 65_536
SECRET_BYTES = 32
# Bytes of images, inputs and rows that a server without a state keeps, beyond which the oldest tasks that have ended go
# before their time.
MOST_MEMORY = 1024 * 1024 * 1024
FACT = "insert into fact (name, value) values (:name, :value) on conflict (name) do nothing"
# The column of a task whose job is no other process's business.
NO_JOB = Statement("cast(null as bigint)")
PUT_ASIDE = "insert into damaged (number, id, account, body, reason) values (:number, :id, :account, :body, :reason)"
PROBE_ROW = """
    insert into fact (name, value) values ('probe', :value) on conflict (name) do update set value = excluded.value
"""

# How much memory SQLite uses for what it holds, and the order in which a full memory drops tasks.
BYTES_OF_ROWS = """
    select (page_count - freelist_count) * page_size as held
    from pragma_page_count, pragma_freelist_count, pragma_page_size
"""
DROPPABLE_INDEX = "create index task_droppable on task (delivered desc, ready_at) where stage = 'ended'"

log = logging.getLogger("fluxwerk.server")


class Store:
    """The rows in a database and the files in a storage; `secret` signs links, and every process has the same.

    An `embedded` store belongs to this process alone, and its tasks are taken up from the rows.
    """

    embedded = True

    def __init__(self, database: StateDatabase, files: Storage, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self.database = database
        self.files = files
        prepare(database)
        with database.write() as transaction:
            transaction.run(FACT, name="secret", value=entropy(SECRET_BYTES))
            found = transaction.one("select value from fact where name = 'secret'")
        self.secret = bytes(found["value"]) if found else b""

    @property
    def blocks(self) -> bool:
        """Whether a question may wait for a network, so that an event loop has to ask in a thread."""
        return self.database.blocks or self.files.blocks

    def hand_over(self, transaction: Transaction, job: TaskRecord) -> int | None:  # noqa: ARG002
        """Let workers of other processes know of a task, in the transaction that accepts it; here there are none."""
        return None

    def handing_over(self, job: TaskRecord, priority: str) -> Statement:  # noqa: ARG002
        """Write an expression that does so in the statement that accepts the task, whose priority is another one."""
        return NO_JOB

    def image(self, name: str | None) -> bytes | None:
        """Read an image, if it is there and whole."""
        data = self.files.get(name) if name else None
        return None if data is None or imagefile.fault(data) else data

    def size(self, name: str) -> int | None:
        """Tell how many bytes a file has, or `None` if it is not there."""
        return self.files.size(name)

    def probe_files(self) -> None:
        """Write a small object, to prove that it is taken; raises `StorageError`."""
        try:
            self.files.check()
        except InvalidUsageError as fault:
            raise StorageError(str(fault)) from None

    def probe_rows(self) -> None:
        """Write a row, to prove that it is taken; raises `DatabaseError`."""
        with self.database.write() as transaction:
            transaction.run(PROBE_ROW, value=bytes(PROBE_BYTES))

    def put_aside(self, row: Row, reason: str) -> None:
        """Move a row that cannot be read to the table `damaged`, and name it in the log."""
        log.error(
            "task %s of the state cannot be read (%s); it is put aside in the table `damaged`.", row["id"], reason
        )
        body = {name: value for name, value in dict(row).items() if isinstance(value, str | int | float)}
        values = {"number": row["number"], "id": row["id"], "account": row["account"], "reason": reason}
        with self.database.write() as transaction:
            transaction.run(PUT_ASIDE, body=dump(body).decode(errors="replace"), **values)
            transaction.run("delete from task where number = :number", number=row["number"])

    def excess(self) -> int:
        """Say how many bytes more are kept than there is room for; a disk has an end of its own."""
        return 0

    async def flushed(self) -> None:
        """Come back when everything that was written so far would survive a power cut; raises `StorageError`."""

    def close(self) -> None:
        """Let another server have the store."""
        self.database.close()


class MemoryStore(Store):
    """The store that keeps nothing beyond the process, and at most `most` bytes of images and rows."""

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom, most: int = MOST_MEMORY) -> None:
        self._memory = MemoryStorage()
        self._most = most
        super().__init__(StateFile(), self._memory, entropy)
        with self.database.write() as transaction:
            transaction.run(DROPPABLE_INDEX)
        # The tables themselves leave no less room.
        self._bare = self._pages()

    def excess(self) -> int:
        """Say how many bytes more are kept than there is room for."""
        return max(0, self._memory.held + self._pages() - self._bare - self._most)

    def _pages(self) -> int:
        (row,) = self.database.ask(BYTES_OF_ROWS)
        held: int = row["held"]
        return held


class DiskStore(Store):
    """The store in a folder, or with its `files` elsewhere.

    Raises `InvalidUsageError` when another server uses it, or another release wrote it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        entropy: Callable[[int], bytes] = os.urandom,
        files: Storage | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for private in ("images", "inputs"):
            (self._folder / private).mkdir(mode=0o700, exist_ok=True)
            (self._folder / private).chmod(0o700)
        with ExitStack() as opened:
            self._lock = opened.enter_context(closing(FolderLock(self._folder / f"{DATABASE}.lock")))
            database = opened.enter_context(closing(_open(self._folder / DATABASE)))
            super().__init__(database, files or Folder(self._folder), entropy)
            self._drop_orphans()
            opened.pop_all()
        self._flush = Flush(database, Path(f"{database.path}-wal"))

    async def flushed(self) -> None:
        """Come back when the log of the database is on the disk as far as it was written."""
        await self._flush.wait()

    def close(self) -> None:
        """Let another server have the folder."""
        super().close()
        self._flush.close()
        self._lock.close()

    def _drop_orphans(self) -> None:
        """Remove inputs whose submit was never answered: the process ended between the files and the row."""
        known = {row["id"] for row in self.database.ask("select id from task union all select id from damaged")}
        for file in (self._folder / "inputs").iterdir():
            if file.name.partition(".")[0] not in known:
                shutil.rmtree(file) if file.is_dir() else file.unlink()


def _open(file: Path) -> StateFile:
    if file.exists() and not file.stat().st_size:
        raise InvalidUsageError(
            f"{file} is empty (0 bytes), so it holds no state. Restore it from a backup, or delete it."
        )
    try:
        database = StateFile(file)
        tables = database.tables()
        columns = {row["name"] for row in database.ask("select name from pragma_table_info('task')")}
    except StorageError as trouble:
        hint = "does another server use it?" if "locked" in str(trouble) else "name another folder"
        raise InvalidUsageError(f"The state in {file.parent} cannot be opened ({trouble.__cause__}); {hint}") from None
    if "task" in tables and "body" in columns:
        database.close()
        raise InvalidUsageError(
            f"The state in {file.parent} was written by fluxwerk 0.1, which this release cannot read. Let that release "
            "finish and deliver its tasks, then delete the folder or name another."
        )
    return database
