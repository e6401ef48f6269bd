"""A worker in a process of its own that dies by SIGKILL at a chosen point; used by the crash tests.

It is built from the public seams alone: a ledger, a client and a saver that die, and a listener that does.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from fluxwerk.batch import Batch
from fluxwerk.batch.run import RunOptions, RunProgress
from fluxwerk.batch.saver import Saver
from fluxwerk.client.client import AsyncClient
from fluxwerk.errors import NoResponseError
from fluxwerk.ledger.database import SQLiteDatabase
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.protocol import wire
from fluxwerk.storage import Folder
from fluxwerk.types import HttpRequest, Response

LEASE = 0.4
TRANSITIONS = ("submitting", "submitted", "withdrawn", "refused", "doubted", "ready", "expired", "failed", "saved")


@dataclass(frozen=True)
class Point:
    """Where to die: at the nth passing of a place such as `before ready` or `told saved`."""

    place: str
    nth: int = 1


class Fate:
    def __init__(self, point: Point | None, first_breath: Connection | None = None) -> None:
        self._point = point
        self._passed = 0
        self._breath = first_breath

    def __call__(self, place: str) -> None:
        if self._point and place == self._point.place:
            self._passed += 1
            if self._passed == self._point.nth:
                os.kill(os.getpid(), signal.SIGKILL)

    def on_progress(self, progress: RunProgress) -> None:
        if self._breath:
            self._breath.send(progress.kind)
            self._breath = None
        self(f"told {progress.kind}")


class DeadlyLedger(Ledger):
    fate: Fate

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in TRANSITIONS:
            return found

        def deadly(*arguments: Any) -> Any:
            self.fate(f"before {name}")
            result = found(*arguments)
            # The transaction that it belongs to is still open.
            self.fate(f"inside {name}")
            return result

        return deadly


class DeadlyClient(AsyncClient):
    """Troubles are asked for by the prompt: busy once, lost, moderated, refused."""

    def __init__(self, key: str, base: str, fate: Fate) -> None:
        super().__init__(key, base_url=base)
        self._fate = fate
        self._asked: set[bytes] = set()
        self._moderated: set[str] = set()

    async def send(self, request: HttpRequest, budget: float | None = None) -> Response:
        kind = "submit" if request.method == "POST" else "poll" if "get_result" in request.url else "fetch"
        self._fate(f"before {kind}")
        if kind == "submit" and b"busy" in request.body and request.body not in self._asked:
            self._asked.add(request.body)
            return wire.write_refusal(429, "busy", error="busy", message="busy", retry_after=0)
        response = await super().send(request, budget)
        self._fate(f"after {kind}")
        if kind == "submit" and b"lost" in request.body:
            raise NoResponseError("the answer was dropped on purpose")
        if kind == "submit" and b"moderated" in request.body:
            self._moderated.add(wire.read_task(response, "", self.access.base).id)
        if kind == "poll" and any(task in request.url for task in self._moderated):
            return Response(200, wire.JSON, wire.dump({"id": "it", "status": "Content Moderated"}))
        return response


class DeadlySaver(Saver):
    fate: Fate

    def save(self, *arguments: Any) -> Any:
        self.fate("before keep")
        saved = super().save(*arguments)
        self.fate("after keep")
        return saved


def work(
    ledger: str,
    base: str,
    folder: str,
    key: str,
    point: Point | None = None,
    breath: Connection | None = None,
    options: RunOptions | None = None,
) -> None:
    """Carry a ledger's jobs until nothing is left or fate strikes."""
    fate = Fate(point, breath)
    opened = DeadlyLedger(SQLiteDatabase(ledger))
    opened.fate = fate
    opened.leases.doubt_holds = LEASE
    saver = DeadlySaver(Folder(folder))
    saver.fate = fate
    chosen = replace(options or RunOptions(), lease=LEASE, concurrency=8, first_pause=0.05)
    batch = Batch(
        opened, client=DeadlyClient(key, base, fate), saver=saver, options=chosen, on_progress=fate.on_progress
    )
    with batch:
        asyncio.run(batch.work())
