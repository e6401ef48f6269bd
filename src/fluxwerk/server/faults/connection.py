"""Trouble on a real line: answers that come late, drop by drop, in part, or not at all.

A server under uvicorn knows the connection of each request by `Line`; elsewhere, as in tests in process, a broken line
is an exception.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from fastapi.responses import Response as Answer
from starlette.types import Receive, Scope, Send

from fluxwerk.server.faults.effects import FaultEffect, SpoiltResponse
from fluxwerk.server.timed import TimedConnection

# Closing a socket with this on it sends a reset instead of a farewell.
ABRUPT = struct.pack("ii", 1, 0)
DROPS = 20

_lines: dict[tuple[str, int], asyncio.Transport] = {}


class FaultyConnection(TimedConnection):
    """The server's own protocol, which lets a request find its connection."""

    _place: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the connection by its far end."""
        super().connection_made(transport)
        place: tuple[str, int] = transport.get_extra_info("peername")[:2]
        self._place = place
        _lines[place] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        _lines.pop(self._place or ("", 0), None)
        super().connection_lost(exc)


class FaultyResponse(Answer):
    """An answer that does to the line what its effect says."""

    def __init__(self, spoilt: SpoiltResponse) -> None:
        super().__init__(spoilt.body, spoilt.status, dict(spoilt.headers))
        self._effect = spoilt.effect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what is to be sent."""
        effect = self._effect
        if await _gone(receive, effect.seconds):
            return
        if effect.reset:
            await _hang_up(scope, receive, reset=True)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if effect.rate is not None:
            await self._drip(receive, send, effect)
        elif effect.sent is None:
            await send({"type": "http.response.body", "body": self.body})
        else:
            await send({"type": "http.response.body", "body": self.body[: effect.sent], "more_body": True})
            if not (effect.holds and await _gone(receive, None)):
                await _hang_up(scope, receive, reset=False)

    async def _drip(self, receive: Receive, send: Send, effect: FaultEffect) -> None:
        rate = effect.rate or 1.0
        drop = max(1, int(rate / DROPS))
        for start in range(0, len(self.body), drop):
            await send({"type": "http.response.body", "body": self.body[start : start + drop], "more_body": True})
            if await _gone(receive, drop / rate):
                return
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive, seconds: float | None) -> bool:
    """Wait `seconds`, or for ever, and return whether the client left meanwhile."""
    if seconds == 0.0:
        return False
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


async def _hang_up(scope: Scope, receive: Receive, *, reset: bool) -> None:
    client: Any = scope.get("client")
    transport = _lines.get(tuple(client)) if client else None
    if transport is None:
        raise ConnectionResetError("the line was cut on demand")
    if reset:
        # A copy of the option's level and name would not do: asyncio hides the socket's close behind its own.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPT)
        transport.abort()
    else:
        transport.close()
    await _gone(receive, 1.0)
