"""What many tasks cost a server: its memory once they have ended, and its submits a second while they are queued.

Run by hand, on a quiet machine: python bench/backlog.py [finished[=100000]] [queued[=1000000]].  Each server is a
process of its own with SQLite in a folder, and with the URL of a PostgreSQL server in FLUXWERK_DATABASE with a new
database there too, which goes again at the end.

The first tasks come over HTTP; the others are copies of their rows, written beside the running server, each with an id,
a link and an account of its own.  `finished` measures `fluxwerk serve` before and after, and started anew behind them;
each time it answers lists, polls and submits first.  `queued` compares the rates of eight connections at two servers,
of which one has a short queue; they are asked in turn, since the machine itself is now slower and now faster.  Nothing
may be taken from these queues: with PostgreSQL it is `fluxwerk serve --workers 0` and a worker that only gives a sign
of life, with SQLite the server's application without an engine.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
import uvicorn
from psycopg import sql

from fluxwerk.ledger.database import Transaction
from fluxwerk.server.app import build
from fluxwerk.server.loopback import config_of, listen
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import DATABASE, StateDatabase, StateFile
from fluxwerk.server.state.fleet import RENDER, FleetDatabase
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.statements import READ
from fluxwerk.server.state.store import DiskStore

BODY = json.dumps({"prompt": "a fox", "width": 64, "height": 64})
MODEL = "flux-2-pro"
CONNECTIONS = 8
# Tasks of one account, which has 24 slots.
EACH = 20
FINISHED, QUEUED = 100_000, 1_000_000
# How many tasks come over HTTP, and how many rows are written at a time, so that the server writes in between.
FIRST, AT_ONCE = 400, 40_000
ROUNDS, ROUND = 15, 800
ACCOUNTS, DATABASES = itertools.count(), itertools.count()
OWN = ("number", "id", "account", "folder", "idempotency_key", "job")
SAME = ", ".join((*(name for name in READ if name not in OWN), "image_bytes", "delivered", "tags"))


class Place(NamedTuple):
    """Where a server has its state.

    `options` tell `serve` so, and `unattended` are the words of a server there whose tasks nobody takes.
    """

    name: str
    options: tuple[str, ...]
    unattended: tuple[str, ...]
    database: Callable[[], StateDatabase]


class Running(NamedTuple):
    """A server in a process of its own."""

    port: int
    pid: int

    def memory(self) -> float:
        """Return what the process holds in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 2**20


@contextmanager
def sqlite() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        database = partial(StateFile, Path(folder) / DATABASE)
        yield Place("SQLite", ("--state", folder), (__file__, "serve", folder), database)


@contextmanager
def postgresql() -> Iterator[Place]:
    server, name = os.environ["FLUXWERK_DATABASE"], f"backlog_{os.getpid()}_{next(DATABASES)}"
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        options = ("--database", url, "--storage", folder)
        try:
            yield Place("PostgreSQL", options, serve("--workers", "0", *options), partial(FleetDatabase, url))
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def kinds() -> list[Callable[[], AbstractContextManager[Place]]]:
    return [sqlite, postgresql] if "FLUXWERK_DATABASE" in os.environ else [sqlite]


@contextmanager
def started(*words: str) -> Iterator[Running]:
    """Run a server, and yield it once it has printed its address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLUXWERK_")}
    command = [sys.executable, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        said = re.search(r"http://\S+:(\d+)", process.stderr.readline())
        assert said
        try:
            yield Running(int(said[1]), process.pid)
        finally:
            process.terminate()


def serve(*options: str) -> tuple[str, ...]:
    return ("-m", "fluxwerk", "serve", "--port", "0", *options)


def serve_without_engine(folder: str) -> None:
    """Serve the application, with nobody who takes tasks, until the process is ended."""
    with closing(DiskStore(folder)) as store, listen("127.0.0.1", 0) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
        app = build(ServerState(Accounts(store=store), time.time), None)
        uvicorn.Server(config_of(app, log_level="error")).run([listening])


def asked(connection: HTTPConnection, method: str, path: str, key: str, body: str | None = None) -> Any:
    connection.request(method, path, body, {"x-key": key, "content-type": "application/json"})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    assert answer.status == 200, said
    return said


def submit(running: Running, count: int) -> list[str]:
    """Submit so many tasks over all connections, twenty for each of new accounts; returns their ids."""
    keys = iter([f"key-{next(ACCOUNTS)}" for _ in range(count // EACH)])
    identities: list[str] = []

    def work() -> None:
        connection = HTTPConnection("127.0.0.1", running.port)
        for key in keys:
            tasks = (asked(connection, "POST", f"/v1/{MODEL}", key, BODY) for _ in range(EACH))
            identities.extend(str(task["id"]) for task in tasks)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return identities


def rate(running: Running) -> float:
    """Return the submits a second."""
    began = time.monotonic()
    return len(submit(running, ROUND)) / (time.monotonic() - began)


def use(running: Running) -> None:
    """Submit tasks, wait for them, and list them, so that the server has what it holds at work."""
    identities = submit(running, FIRST)
    connection = HTTPConnection("127.0.0.1", running.port)
    for identity in identities:
        while asked(connection, "GET", f"/v1/get_result?id={identity}", "any")["status"] == "Pending":
            time.sleep(0.01)
    for number in range(next(ACCOUNTS)):
        asked(connection, "GET", "/v1/tasks", f"key-{number}")


def fill(database: StateDatabase, stage: str, total: int) -> int:
    """Copy the tasks of a stage until it has about `total`; returns how many it has."""
    [row] = database.ask(COUNT, stage=stage)
    times, step = total // row["count"], max(1, AT_ONCE // row["count"])
    for first in range(1, times, step):
        last = min(first + step, times) - 1
        with database.write() as transaction:
            transaction.run(COPY, first=first, last=last, stage=stage, newest=row["newest"])
            if isinstance(database, FleetDatabase):
                hand_over(transaction)
    [row] = database.ask(COUNT, stage=stage)
    return int(row["count"])


COUNT = "select count(*) as count, max(number) as newest from task where stage = :stage"
COPY = f"""
    insert into task (id, account, folder, {SAME})
    with recursive copy(turn) as (select cast(:first as integer) union all select turn + 1 from copy where turn < :last)
    select task.id || '-' || copy.turn, task.account || '-' || copy.turn, task.folder || '-' || copy.turn, {{same}}
    from task, copy where stage = :stage and task.number <= :newest
""".format(same=", ".join(f"task.{name}" for name in SAME.split(", ")))


def hand_over(transaction: Transaction) -> None:
    """Give every queued copy a job, as a task that was accepted has one."""
    transaction.run(JOBS, render=RENDER)
    transaction.run(NUMBERS)


JOBS = """
    insert into procrastinate_jobs (queue_name, task_name, priority, args)
    select model, :render, priority, jsonb_build_object('identity', id) from task where stage = 'queued' and job is null
"""
NUMBERS = """
    update task set job = procrastinate_jobs.id from procrastinate_jobs
    where task.stage = 'queued' and task.job is null and procrastinate_jobs.args ->> 'identity' = task.id
"""


def finished(number: int) -> None:
    for kind in kinds():
        with kind() as place:
            with started(*serve(*place.options)) as running, closing(place.database()) as database:
                use(running)
                before = running.memory()
                count = fill(database, "ended", number)
                use(running)
                after = running.memory()
            with started(*serve(*place.options)) as running:
                use(running)
                anew = running.memory()
        told = f"{before:.0f} MB with {FIRST} finished tasks, {after:.0f} MB with {count:,} ({after / before:.2f})"
        print(f"  {place.name:12} {told}, {anew:.0f} MB started anew", flush=True)


def queued(number: int) -> None:
    for kind in kinds():
        with kind() as short, kind() as long, unattended(short) as one, unattended(long) as other:
            rates = [(rate(one), rate(other)) for _ in range(2)]
            before = other.memory()
            with closing(long.database()) as database:
                count = fill(database, "queued", number)
                if isinstance(database, FleetDatabase):
                    # PostgreSQL does so by itself within a minute.
                    with database.write() as transaction:
                        transaction.run("analyze")
            rates = [(rate(one), rate(other)) for _ in range(ROUNDS)]
            after = other.memory()
        usual, behind = (statistics.median(column) for column in zip(*rates, strict=True))
        ratio = statistics.median(full / empty for empty, full in rates)
        told = f"{usual:.0f} submits/s into a short queue, {behind:.0f} behind {count:,} tasks ({ratio:.2f})"
        print(f"  {long.name:12} {told}, {before:.0f} and {after:.0f} MB", flush=True)


@contextmanager
def unattended(place: Place) -> Iterator[Running]:
    """Run a server that has got its first tasks."""
    with started(*place.unattended) as running:
        if place.options[0] == "--database":
            with closing(place.database()) as database:
                live_for_ever(database)
        submit(running, FIRST)
        yield running


def live_for_ever(database: StateDatabase) -> None:
    """Write the sign of life of a worker that takes nothing, from the year 5138."""
    with database.write() as transaction:
        transaction.run(
            "insert into process (id, kind, engine, models, beat) values ('bench', 'worker', 'offline', :models, 1e11)",
            models=json.dumps([MODEL]),
        )


PARTS: dict[str, tuple[Callable[[int], None], int]] = {"finished": (finished, FINISHED), "queued": (queued, QUEUED)}


def main() -> None:
    print(f"{time.strftime('%F')}  {platform.platform()}  Python {platform.python_version()}  {os.cpu_count()} cores")
    for part in sys.argv[1:] or PARTS:
        name, _, number = part.partition("=")
        measure, usual = PARTS[name]
        print(f" {name}")
        measure(int(number or usual))
    print(f"  load of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_without_engine(sys.argv[2])
    else:
        main()
