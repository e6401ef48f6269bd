"""Whether the state can be written: what is known of its database and of its storage, and what the log says of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock

from fluxwerk.errors import StorageError
from fluxwerk.ledger.database import DatabaseError

# Seconds between two lines of the log about the same part.
LOG_EVERY = 60.0
# Seconds between two probes of the storage.
PROBE_EVERY = 10.0
# Seconds after which a probe that has not come back counts as failed; a bucket is asked again for minutes.
LONGEST_PROBE = 5.0
NO_ROWS = "%s See that it runs and has space; until it can be written, submits get a 503."
NO_FILES = "%s Until it can be used, submits with images get a 503, and images that are made wait in memory."

log = logging.getLogger("fluxwerk.server")


class StorageCondition:
    """Whether a state takes what it is given.

    `probe_rows` and `probe_files` write something to database and storage that changes nothing.
    """

    def __init__(
        self, clock: Callable[[], float], probe_rows: Callable[[], object], probe_files: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._probe_rows = probe_rows
        self._probe_files = probe_files
        # Why the last use of each failed; `None` while it takes what it is given.
        self.database: str | None = None
        self.storage: str | None = None
        self._logged: dict[str, float] = {}
        self._known = float("-inf")
        self._probing = Lock()
        # When the probe began that is under way.
        self._began: float | None = None

    @property
    def error(self) -> str | None:
        """What is wrong, if anything is."""
        return self.database or self.storage

    def check(self) -> bool:
        """Whether tasks and their images can be kept."""
        found = self.check_database(), self.check_storage()
        return all(found)

    def check_database(self) -> bool:
        """Whether rows can be written; after a failure it is tried again."""
        return self.database is None or self.tries(self._probe_rows)

    def check_storage(self) -> bool:
        """Whether files can be written, as of the last ten seconds; one caller finds out, and others do not wait."""
        now = self._clock()
        if now - self._known >= PROBE_EVERY and self._probing.acquire(blocking=False):
            try:
                self._probe(now)
            finally:
                self._probing.release()
        began = self._began
        return self.storage is None and (began is None or now - began < LONGEST_PROBE)

    def tries(self, write: Callable[[], object]) -> bool:
        """Write to the database; says whether it took it."""
        try:
            write()
        except StorageError as error:
            self.note(error)
            return False
        self.database = None
        return True

    def took_files(self) -> None:
        """Note that the storage took a file."""
        self.storage, self._known = None, self._clock()

    def note(self, error: StorageError) -> None:
        """Keep a failure of database or storage for `/healthz`, and log it once a minute."""
        if isinstance(error, DatabaseError):
            self.database = str(error)
            self._log("database", NO_ROWS, error)
        else:
            self.storage, self._known = str(error), self._clock()
            self._log("storage", NO_FILES, error)

    def _probe(self, now: float) -> None:
        self._began = now
        try:
            self._probe_files()
        except StorageError as error:
            self.note(error)
        else:
            self.took_files()
        finally:
            self._began = None

    def _log(self, part: str, text: str, error: StorageError) -> None:
        now = self._clock()
        if now - self._logged.get(part, float("-inf")) >= LOG_EVERY:
            self._logged[part] = now
            log.warning(text, error)
