"""What the server costs beside a bare FastAPI route: submits and polls a second, of one process without rendering.

Run by hand, on a quiet machine: python bench/server.py [seconds].  Each server runs in a process of its own, and eight
connections ask it in turn; a ratio is the server's rate by that of a route that answers the same JSON from a constant.
Then 64 connections ask at once, and the 99th percentile says how long the slowest in a hundred waited.
With an empty PostgreSQL database in FLUXWERK_DATABASE it is measured too.
"""

from __future__ import annotations

import gc
import itertools
import json
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, NamedTuple

import fastapi
import uvicorn

from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.ledger.postgresql import is_address
from fluxwerk.server.app import build
from fluxwerk.server.loopback import config_of
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.fleet import FleetDatabase, FleetStore
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.store import DiskStore, Store

FEW, MANY = 8, 64
BODY = json.dumps({"prompt": "fluxwerk:pending-forever", "width": 64, "height": 64})
# Accounts of twenty tasks each, since an account has 24 slots and these tasks never end.
TASKS = itertools.count()


def bare(listening: socket.socket) -> None:
    app = fastapi.FastAPI()
    task = {"id": "0" * 36, "polling_url": "http://127.0.0.1/v1/get_result?id=0", "cost": 3.0, "output_mp": 0.01}

    async def submit(body: dict[str, Any]) -> dict[str, Any]:
        return {**task, "input_mp": len(body)}

    async def poll(id: str) -> dict[str, Any]:  # noqa: A002
        return {"id": id, "status": "Pending", "result": None, "progress": None, "details": None, "preview": None}

    app.post("/v1/flux-2-pro")(submit)
    app.get("/v1/get_result")(poll)
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run([listening])


def ours(listening: socket.socket, folder: str | None = None) -> None:
    accounts = Accounts(store=store_at(folder) if folder else None)
    state = ServerState(accounts, time.time)
    # As `fluxwerk serve` does.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config_of(build(state, OfflineEngine()), log_level="error")).run([listening])


def store_at(place: str) -> Store:
    if not is_address(place):
        return DiskStore(place)
    return FleetStore(FleetDatabase(place), MemoryStorage())


def asked(port: int, seconds: float, ask: Callable[[HTTPConnection], None], connections: int) -> list[float]:
    """Ask over so many connections at once, and return how many seconds each answer took, the shortest first."""
    took: list[list[float]] = [[] for _ in range(connections)]
    until = time.monotonic() + seconds

    def work(mine: list[float]) -> None:
        connection = HTTPConnection("127.0.0.1", port)
        while (began := time.monotonic()) < until:
            ask(connection)
            mine.append(time.monotonic() - began)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in took]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(itertools.chain(*took))


def submit(connection: HTTPConnection) -> str:
    headers = {"x-key": f"key-{next(TASKS) // 20}", "content-type": "application/json"}
    connection.request("POST", "/v1/flux-2-pro", BODY, headers)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status == 200, body
    return str(body["id"])


class Measured(NamedTuple):
    """Answers a second, and the milliseconds of the slowest in a hundred among many connections."""

    submits: float
    polls: float
    slow_submit: float
    slow_poll: float


def measured(target: Callable[..., None], seconds: float, *given: str) -> Measured:
    # asyncio sends small packets at once only on sockets that name their protocol.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        process = multiprocessing.get_context("fork").Process(target=target, args=(listening, *given), daemon=True)
        process.start()
    first = submit(HTTPConnection("127.0.0.1", port))

    def poll(connection: HTTPConnection) -> None:
        connection.request("GET", f"/v1/get_result?id={first}")
        connection.getresponse().read()

    asks: tuple[Callable[[HTTPConnection], None], ...] = (lambda connection: void(submit(connection))), poll
    try:
        rates = [len(asked(port, seconds, ask, FEW)) / seconds for ask in asks]
        slow = [statistics.quantiles(asked(port, seconds, ask, MANY), n=100)[-1] * 1000 for ask in asks]
    finally:
        process.kill()
        process.join()
    return Measured(*rates, *slow)


def void(_: object) -> None:
    """Drop a value."""


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print(f"{time.strftime('%F')}  {platform.platform()}  Python {platform.python_version()}  {os.cpu_count()} cores")
    base = measured(bare, seconds)
    show("bare FastAPI route", base, base)
    with tempfile.TemporaryDirectory() as folder:
        database = os.environ.get("FLUXWERK_DATABASE")
        places = [("memory", ()), ("--state", (folder,)), *([("--database", (database,))] if database else [])]
        for name, given in places:
            show(name, measured(ours, seconds, *given), base)
    print(f"  load of the machine at the end: {os.getloadavg()[0]:.1f}")


def show(name: str, found: Measured, base: Measured) -> None:
    rates = f"{found.submits:5.0f} submits/s ({found.submits / base.submits:.2f})  {found.polls:5.0f} polls/s"
    slow = f"p99 {found.slow_submit:4.0f} and {found.slow_poll:4.0f} ms"
    times = f"({found.slow_submit / base.slow_submit:.1f} and {found.slow_poll / base.slow_poll:.1f} times)"
    print(f"  {name:20} {rates} ({found.polls / base.polls:.2f})  {slow} {times}")


if __name__ == "__main__":
    main()
