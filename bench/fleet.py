"""What a fleet does: how soon a worker has a task, how it scales, and how soon another worker takes over.

Run by hand, with an empty PostgreSQL database: FLUXWERK_DATABASE=postgresql://… python bench/fleet.py [part ...], of
the parts embedded, latency, workers and takeover.  The first needs no database.  Workers are processes of their own;
in the other parts this process accepts the tasks, without HTTP.  bench/backlog.py has what many tasks cost a server.
"""

from __future__ import annotations

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from fluxwerk import Task, get_model
from fluxwerk.engines import Order
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.fleet import FleetDatabase, FleetStore
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.storage import Folder
from fluxwerk.testing import loopback

MODEL = get_model("flux-2-klein-4b")
SIDE = 256


def accept(accounts: Accounts, number: int, name: str = "bench") -> str:
    """Accept one task of an account that is new after twenty of them, and return its id."""
    account = accounts.account(f"{name}-{number // 20}")
    assert account is not None
    identity = f"{name}-{number}"
    task = Task(identity, f"http://bench.test/{identity}", MODEL.name, Decimal("1.4"))
    order = Order(MODEL.name, f"image {number}", number, SIDE, SIDE, "jpeg", id=identity)
    accounts.tasks.accept(TaskRecord(task, account.id, MODEL, order, time.time(), folder=identity), account)
    return identity


def open_fleet(folder: Path) -> FleetStore:
    return FleetStore(FleetDatabase(os.environ["FLUXWERK_DATABASE"]), Folder(folder))


def start_worker(folder: Path) -> subprocess.Popen[str]:
    place = ["--database", os.environ["FLUXWERK_DATABASE"], "--storage", str(folder)]
    command = [sys.executable, "-m", "fluxwerk", "worker", *place]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    running.stderr.readline()
    return running


def until_ended(accounts: Accounts, identity: str) -> TaskRecord:
    while True:
        job = accounts.tasks.find(identity, time.time())
        if job is not None and job.ready_at is not None:
            return job
        time.sleep(0.002)


def told(name: str, seconds: list[float]) -> None:
    middle, worst = statistics.median(seconds) * 1000, max(seconds) * 1000
    print(f"  {name:44} median {middle:6.1f} ms, longest {worst:6.1f} ms of {len(seconds)}")


def latency() -> None:
    with tempfile.TemporaryDirectory() as folder, closing(open_fleet(Path(folder))) as store:
        worker = start_worker(Path(folder))
        accounts = Accounts(store=store)
        waits: list[float] = []
        for number in range(50):
            job = until_ended(accounts, accept(accounts, number, f"latency-{time.time()}"))
            waits.append((job.began or 0.0) - job.accepted)
        worker.kill()
        told("accepted → a worker has it, PostgreSQL", waits)


def embedded() -> None:
    accounts = Accounts()
    with loopback(accounts=accounts) as base:
        import httpx2  # noqa: PLC0415

        waits: list[float] = []
        for number in range(50):
            body = {"prompt": f"image {number}", "width": SIDE, "height": SIDE}
            answer = httpx2.post(f"{base}/v1/flux-2-klein-4b", json=body, headers={"x-key": f"key-{number}"})
            job = until_ended(accounts, answer.json()["id"])
            waits.append((job.began or 0.0) - job.accepted)
        told("accepted → the worker has it, embedded", waits)


def workers() -> None:
    for count in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder, closing(open_fleet(Path(folder))) as store:
            running = [start_worker(Path(folder)) for _ in range(count)]
            accounts = Accounts(store=store)
            began = time.monotonic()
            names = [accept(accounts, number, f"workers-{count}-{time.time()}") for number in range(200)]
            for name in names:
                until_ended(accounts, name)
            print(
                f"  {count} workers of offline, {SIDE}×{SIDE}: {len(names) / (time.monotonic() - began):6.1f} images/s"
            )
            for worker in running:
                worker.kill()


def takeover() -> None:
    seconds: list[float] = []
    for trial in range(3):
        with tempfile.TemporaryDirectory() as folder, closing(open_fleet(Path(folder))) as store:
            first = start_worker(Path(folder))
            accounts = Accounts(store=store)
            names = [accept(accounts, number, f"takeover-{trial}-{time.time()}") for number in range(20)]
            while not store.database.ask("select 1 as one from task where stage = 'running' limit 1"):
                time.sleep(0.002)
            first.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            second = start_worker(Path(folder))
            for name in names:
                until_ended(accounts, name)
            seconds.append(time.monotonic() - killed)
            second.kill()
    print(f"  SIGKILL → every task has ended on another worker: {', '.join(f'{one:.1f}' for one in seconds)} s")


PARTS: dict[str, Callable[[], None]] = {
    "embedded": embedded,
    "latency": latency,
    "workers": workers,
    "takeover": takeover,
}


def main() -> None:
    print(f"{time.strftime('%F')}  {platform.platform()}  Python {platform.python_version()}  {os.cpu_count()} cores")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
