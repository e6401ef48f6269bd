"""How many connections the server takes, and what the log shows when there are no descriptors left."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable

# One connection beyond the limit is answered with 503; more descriptors are for files, webhooks and image hosts.
MOST_CONNECTIONS = 10_000
SHARE = 0.75
# Seconds; a client that polls asks more often.
KEEP_ALIVE = 15
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
MINUTE = 60.0


def connections() -> int:
    """Count the connections that the limit of this process leaves room for."""
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ModuleNotFoundError:
        return MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft < 0 else max(1, min(MOST_CONNECTIONS, int(soft * SHARE)))


class OncePerMinute(logging.Filter):
    """Lets one record a minute through of those that say that no descriptor is left.

    asyncio logs one such record with a traceback for each place in the backlog, every second.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
            return True
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + MINUTE
        record.msg = f"No connection can be accepted: {error.strerror}; raise the limit (ulimit -n) or close clients"
        record.args, record.exc_info, record.exc_text = (), None, None
        return True


# One for the process, since the log of asyncio is one.
SHOWN = OncePerMinute()
