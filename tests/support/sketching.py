"""An engine that shows previews and waits, for the tests of doors."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext

from fluxwerk.engines import FullAbilities, RenderProgress
from fluxwerk.testing.face_to_face import blank
from support.images import jpeg


class Sketching(FullAbilities):
    """An engine that shows two previews, and goes on after each when it is let go."""

    name = "sketching"

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def open(self):
        self._loop, self._free = asyncio.get_running_loop(), asyncio.Event()
        return nullcontext()

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self._free.set)

    async def paint(self, order, report):
        try:
            for share in (0.25, 0.5):
                report(RenderProgress(share, jpeg(16, 8 + round(share * 100))))
                await self._free.wait()
                self._free.clear()
        except asyncio.CancelledError:
            self.stopped.set()
            raise
        return blank(order.width, order.height)
