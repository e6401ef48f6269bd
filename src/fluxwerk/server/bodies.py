"""Request bodies: how large one may be, how slowly it may come, and how many bytes all of them hold together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import fastapi

from fluxwerk.server import survey
from fluxwerk.server.errors import ServerError

# What has a few fields, and no images.
LARGEST_QUESTION = 1024 * 1024
# What may be read before anything is asked about its sender; with its head it has mostly arrived.  Longer bodies are
# decoded before they are answered, so their senders are judged first.
SHORT_BODY = survey.SHORT
RETRY_AFTER = 1


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes that bodies and fetched images may hold, in total and by account, and how long a body may take to arrive.

    A body has `grace` seconds, and one more for every `rate` bytes that arrived, so that a slow line may be long at it
    and a line that sends nothing may not.  While `unjudged` short bodies arrive from senders about whom nothing was
    asked, further senders are judged by their headers first: strangers cannot take up what all requests may hold.
    """

    total: int = 1024 * 1024 * 1024
    account: int = 512 * 1024 * 1024
    grace: float = 30.0
    rate: int = 64 * 1024
    unjudged: int = 1000


@dataclass(slots=True)
class HeldBytes:
    """Counts what the requests of one server hold."""

    limits: BodyLimits = field(default_factory=BodyLimits)
    total: int = 0
    unjudged: int = 0
    by_owner: Counter[str] = field(default_factory=Counter[str])

    def may_read_first(self, request: fastapi.Request) -> bool:
        """Whether a body is short enough to be read before its sender is judged, and few of them arrive now."""
        return self.unjudged < self.limits.unjudged and is_short(request)

    @contextmanager
    def open(self, owner: str) -> Generator[HeldRequest]:
        """Count for one request of an owner, until it is answered."""
        held = HeldRequest(self, owner)
        try:
            yield held
        finally:
            self.total -= held.size
            self.by_owner[owner] -= held.size
            if self.by_owner[owner] <= 0:
                del self.by_owner[owner]


@dataclass(slots=True)
class HeldRequest:
    """What one request holds: its body, and the images that were fetched for it."""

    held: HeldBytes
    owner: str
    size: int = 0

    def check(self, more: int) -> None:
        """Refuse what does not fit at the moment; raises `ServerError`."""
        limits = self.held.limits
        if self.held.by_owner[self.owner] + more > limits.account:
            text = f"Requests of this account hold {limits.account // 2**20} MB; wait for their answers"
            raise ServerError("busy", text, retry_after=RETRY_AFTER)
        if self.held.total + more > limits.total:
            text = f"Requests hold {limits.total // 2**20} MB, which is all that the server takes at a time"
            raise ServerError("full", text, retry_after=RETRY_AFTER)

    def add(self, more: int) -> None:
        """Count bytes that have arrived; raises `ServerError`."""
        self.check(more)
        self.held.total += more
        self.held.by_owner[self.owner] += more
        self.size += more

    async def read_first(self, request: fastapi.Request) -> bytes:
        """Read a short body before its sender is judged; raises `ServerError`."""
        self.held.unjudged += 1
        try:
            return await self.read(request, SHORT_BODY)
        finally:
            self.held.unjudged -= 1

    async def read(self, request: fastapi.Request, largest: int) -> bytes:
        """Read the body; raises `ServerError`, for a declared length before the first byte is read."""
        limits, loop = self.held.limits, asyncio.get_running_loop()
        self.check(_declared(request, largest))
        body, start = bytearray(), loop.time()
        try:
            async with asyncio.timeout(limits.grace) as timeout:
                async for part in request.stream():
                    if len(body) + len(part) > largest:
                        raise too_large(largest)
                    self.add(len(part))
                    body += part
                    timeout.reschedule(start + limits.grace + len(body) / limits.rate)
        except TimeoutError:
            text = f"The body came too slowly: it has {limits.grace:g} s, and 1 s for every {limits.rate} bytes"
            raise ServerError("slow", text) from None
        return bytes(body)


def _declared(request: fastapi.Request, largest: int) -> int:
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        return 0
    if len(length) > len(str(largest)) or int(length) > largest:
        raise too_large(largest)
    return int(length)


def is_short(request: fastapi.Request) -> bool:
    """Whether a request says that its body is short."""
    length = request.headers.get("content-length", "")
    return length.isascii() and length.isdigit() and len(length) <= len(str(SHORT_BODY)) and int(length) <= SHORT_BODY


def too_large(largest: int) -> ServerError:
    """Say how many bytes a body may have."""
    most = f"{largest // 2**20} MB" if largest >= 2**20 else f"{largest} bytes"
    return ServerError("too_large", f"Body too large: at most {most} are read at this path", detail="Body too large")
