"""One thread that writes to the ledger for a whole event loop: transitions that wait together share one flush.

Each transition is still all or nothing, and its caller goes on only once it is on the disk.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from fluxwerk.errors import ConflictError
from fluxwerk.ledger.database import Database

T = TypeVar("T")
Act: TypeAlias = Callable[[], Any]
Entry: TypeAlias = "tuple[Act, asyncio.Future[Any]]"
Result: TypeAlias = "tuple[asyncio.Future[Any], Any, BaseException | None]"

# How many transitions share a flush at most, to keep each caller's wait short.
LARGEST_GROUP = 256


class LedgerWriter:
    """Writes for one event loop, until it is closed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="fluxwerk-writer", daemon=True)
        self._thread.start()

    async def write(self, act: Callable[[], T]) -> T:
        """Have an act of the ledger done, and come back when it is on the disk; raises what the act raised.

        An act may be done twice if the first time was rolled back, so it must keep nothing of its own.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((act, future))
        return await future

    async def close(self) -> None:
        """Finish what was asked for and end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        open_ = True
        while open_:
            group = [self._queue.get()]
            while len(group) < LARGEST_GROUP and not self._queue.empty():
                group.append(self._queue.get())
            entries = [entry for entry in group if entry is not None]
            open_ = len(entries) == len(group)
            if entries:
                results = self._commit(entries)
                self._loop.call_soon_threadsafe(_answer, results)

    def _commit(self, entries: list[Entry]) -> list[Result]:
        with suppress(Exception):
            return self._together(entries)
        # One of them is to blame: each is tried by itself, and raises in its own caller.
        return [self._alone(entry) for entry in entries]

    def _together(self, entries: list[Entry]) -> list[Result]:
        results: list[Result] = []
        with self._database.write():
            for act, future in entries:
                try:
                    results.append((future, act(), None))
                except ConflictError as late:
                    # It is raised before anything is written, so the others need not be undone.
                    results.append((future, None, late))
        return results

    def _alone(self, entry: Entry) -> Result:
        act, future = entry
        try:
            with self._database.write():
                return future, act(), None
        except BaseException as error:  # noqa: BLE001  (it belongs to the caller)
            return future, None, error


def _answer(results: list[Result]) -> None:
    for future, value, error in results:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
