"""Commits that wait together share one flush of the disk.

A commit of the state is a write to SQLite's log, which takes microseconds; what makes it outlive a power cut is the
flush of that log, which takes milliseconds.  So moves do not wait for it, and answers do.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from fluxwerk.ledger.database import DatabaseError, SQLiteDatabase


class Flush:
    """Flushes the write-ahead log of a database, in a thread and for everybody who waits."""

    def __init__(self, database: SQLiteDatabase, log: Path) -> None:
        self._database = database
        self._log = os.open(log, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self._flushed = 0
        self._running: asyncio.Future[None] | None = None
        # A log that was just made is a name in its folder, which has to be on the disk as well.
        if os.name != "nt":
            folder = os.open(log.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    async def wait(self) -> None:
        """Come back when everything that was committed so far is on the disk; raises `DatabaseError`."""
        commits = self._database.commits
        while self._flushed < commits:
            if self._running is None or self._running.done():
                self._running = asyncio.ensure_future(self._run())
            await asyncio.shield(self._running)

    def close(self) -> None:
        """Close the log."""
        os.close(self._log)

    async def _run(self) -> None:
        commits = self._database.commits
        try:
            await asyncio.to_thread(_flush, self._log)
        except OSError as error:
            raise DatabaseError(f"The state in {self._database.path} cannot be flushed ({error.strerror}).") from None
        self._flushed = max(self._flushed, commits)


def _flush(handle: int) -> None:
    # The length of the file is flushed with its data, and its times need not be.
    getattr(os, "fdatasync", os.fsync)(handle)
