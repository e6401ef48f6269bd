"""Whether the state can be written: what its last write showed, and what the log says of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fluxwerk.errors import StorageError

# Seconds between two lines of the log about the same disk.
LOG_EVERY = 60.0

log = logging.getLogger("fluxwerk.server")


class StorageCondition:
    """Whether a state takes what it is given; `probe` writes something that changes nothing."""

    def __init__(self, clock: Callable[[], float], probe: Callable[[], object]) -> None:
        self._clock = clock
        self._probe = probe
        # Why the last write failed; `None` while the storage takes what it is given.
        self.error: str | None = None
        self._logged: float | None = None

    def check(self) -> bool:
        """Whether tasks can be kept; after a failed write the storage is tried again."""
        return self.error is None or self.tries(self._probe)

    def tries(self, write: Callable[[], object]) -> bool:
        """Write to the storage; says whether it took it."""
        try:
            write()
        except StorageError as error:
            self.note(error)
            return False
        self.error = None
        return True

    def note(self, error: StorageError) -> None:
        """Keep a failure of the storage for `/healthz`, and log it once a minute."""
        self.error = str(error)
        now = self._clock()
        if self._logged is None or now - self._logged >= LOG_EVERY:
            self._logged = now
            log.warning("%s See that it runs and has space; until it can be written, submits get a 503.", error)
