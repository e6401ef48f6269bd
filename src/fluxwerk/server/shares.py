"""Shares of something scarce: a total, and how much of it one holder may have at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager


class Share:
    """Lets each key hold `most` places at a time; a key without holders takes no memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._users: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncGenerator[None]:
        """Hold a place of this key, waiting for one if all are taken."""
        places, users = self._users.get(key) or (asyncio.Semaphore(self._most), 0)
        self._users[key] = places, users + 1
        try:
            async with places:
                yield
        finally:
            places, users = self._users[key]
            if users > 1:
                self._users[key] = places, users - 1
            else:
                del self._users[key]


class Shares:
    """Bounds what a host, an account and all together may hold, so that a slow host makes only itself wait."""

    def __init__(self, host: int, account: int, total: int) -> None:
        self._host = Share(host)
        self._account = Share(account)
        self._total = asyncio.Semaphore(total)

    @asynccontextmanager
    async def hold(self, host: str, account: str) -> AsyncGenerator[None]:
        """Hold one place; the narrowest share comes first, so that a wait for it takes nothing from the others."""
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._host.hold(host))
            await held.enter_async_context(self._account.hold(account))
            await held.enter_async_context(self._total)
            yield
