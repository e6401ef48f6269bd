"""A simple engine on several threads, so that a server handles live engines only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeGuard, cast

from fluxwerk.engines import Engine, FullAbilities, LiveEngine, Order, RenderProgress, Report


class ThreadedEngine(FullAbilities):
    """Renders up to `count` orders at once, by default one for each core; what has begun cannot be stopped."""

    def __init__(self, engine: Engine, count: int | None = None) -> None:
        self.name = engine.name
        self._engine = engine
        self._count = count or os.cpu_count() or 1
        # One more for each thread, so that none waits for its next order.
        self.capacity = 2 * self._count
        self._pool: ThreadPoolExecutor | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Run the threads; at the end they finish the orders they render and drop those that wait."""
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="engine")
        try:
            yield
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    async def paint(self, order: Order, report: Report) -> bytes:
        """Return the image that one of the threads renders; the only report is that it has begun."""
        assert self._pool is not None, "open() comes first"
        loop = asyncio.get_running_loop()

        def render() -> bytes:
            loop.call_soon_threadsafe(report, RenderProgress(0.0))
            return self._engine.render(order)

        return await loop.run_in_executor(self._pool, render)


def live(engine: Engine | LiveEngine, threads: int | None = None) -> LiveEngine:
    """Return the engine as a live one."""
    return ThreadedEngine(engine, threads) if _is_simple(engine) else cast("LiveEngine", engine)


def _is_simple(engine: Engine | LiveEngine) -> TypeGuard[Engine]:
    return hasattr(engine, "render")
