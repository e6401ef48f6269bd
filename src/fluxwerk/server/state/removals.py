"""Files that are to go: named in the transaction that lets go of them, and removed until they are gone.

A storage may fail once the row is gone, and a process may end between a file and the row that was to name it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from fluxwerk.errors import FluxwerkError, StorageError
from fluxwerk.ledger.database import Database, DatabaseError, Transaction, UnknownCommitError
from fluxwerk.storage import Storage

# Seconds after which a file goes that no row has come to name: far longer than any submit takes.
UNNAMED = 3600.0
# Seconds until a file is tried again that could not be removed, and until this process tries another one.
RETRY = 60.0
REMOVED_AT_ONCE = 100
NOTE = """
    insert into removal (file, due) values (:file, :due) on conflict (file) do update set due = excluded.due
"""
DUE = "select file from removal where due <= :now order by due, file limit :most"
POSTPONE = "update removal set due = :due where file = :file"
FORGET = "delete from removal where file = :file"

log = logging.getLogger("fluxwerk.server")


class Removals:
    """The files that a state lets go of."""

    def __init__(self, database: Database, files: Storage) -> None:
        self._database = database
        self._files = files
        self._paused = float("-inf")

    def announce(self, files: Sequence[str], now: float) -> None:
        """Let files that are about to be written go after an hour, unless `keep` is called for them."""
        if not files:
            return
        try:
            with self._database.write() as transaction:
                self.note(transaction, files, now + UNNAMED)
        except UnknownCommitError as error:
            # Whether it is there makes no difference, as no file is there yet.
            raise DatabaseError(str(error)) from None

    def keep(self, transaction: Transaction, files: Sequence[str]) -> None:
        """Let files stay, in the transaction that writes the row which names them."""
        if files:
            transaction.run_many(FORGET, [{"file": file} for file in files])

    def note(self, transaction: Transaction, files: Sequence[str], due: float = 0.0) -> None:
        """Let files go, in the transaction after which no row names them."""
        if files:
            transaction.run_many(NOTE, [{"file": file, "due": due} for file in files])

    def remove(self, files: Sequence[str]) -> None:
        """Remove files that were noted, as far as the storage lets; what is left goes with a sweep."""
        with suppress(StorageError):
            for file in files:
                self._files.remove(file)
            self._forget(files)

    def sweep(self, now: float) -> None:
        """Remove files that are due; one that cannot be removed is named in the log and tried again."""
        if now < self._paused:
            return
        found: list[str] = [row["file"] for row in self._database.ask(DUE, now=now, most=REMOVED_AT_ONCE)]
        gone: list[str] = []
        try:
            for file in found:
                self._files.remove(file)
                gone.append(file)
        except FluxwerkError as error:
            log.warning("%s It is tried again until it is gone.", error)
            self._postpone(found[len(gone)], now)
        self._forget(gone)

    def _postpone(self, file: str, now: float) -> None:
        """Let other files have their turn first, and the storage a pause: it may be the storage that fails."""
        self._paused = now + RETRY
        with self._database.write() as transaction:
            transaction.run(POSTPONE, file=file, due=now + RETRY)

    def _forget(self, files: Sequence[str]) -> None:
        if files:
            with self._database.write() as transaction:
                # In one order everywhere, so that no two processes wait for each other.
                transaction.run_many(FORGET, [{"file": file} for file in sorted(files)])
