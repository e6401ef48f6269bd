"""A connection that has to say what it wants in time, which uvicorn asks of none."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0


class TimedConnection(H11Protocol):
    """Closes a connection whose next request has no complete head after `head_seconds`.

    uvicorn's keep-alive time-out begins with the first answer and ends with the next byte, so it closes neither a
    connection that never sends anything nor one that sends its headers drop by drop.
    """

    head_seconds = HEAD_SECONDS
    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._stop()
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        self._overdue = self.loop.call_later(self.head_seconds, self._close_silent)

    def _stop(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()

    def _close_silent(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
