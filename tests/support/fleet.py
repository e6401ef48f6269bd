"""A fleet of real processes over one PostgreSQL: servers and workers that are killed, stopped and started again."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

PRO = "/v1/flux-2-pro"
# Seconds after which clients give a fleet up, and how many more they have for each task.
PATIENCE, TASK_PATIENCE = 180.0, 0.5
# To load the certificates for each request anew would take more of the processor than a fleet does.
TRUST = ssl.create_default_context()


@dataclass
class FleetProcess:
    """A server or a worker that can be started again with the same command."""

    command: list[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    running: subprocess.Popen | None = None
    before: int = 0

    @property
    def is_up(self) -> bool:
        """Whether it has said since its start that it serves or renders."""
        said = self.log.read_bytes()[self.before :]
        return b"fluxwerk serves" in said or b"fluxwerk renders" in said

    def start(self) -> None:
        self.before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            environment = {**self.environment, "no_proxy": "*"}
            self.running = subprocess.Popen(self.command, stderr=log, stdout=log, env=environment)

    def send(self, number: int) -> None:
        self.running.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.running.wait()

    def end(self, patience: float = 60) -> int:
        self.send(signal.SIGTERM)
        return self.running.wait(patience)


@dataclass
class Fleet:
    """Servers and workers with one database and one storage: by default a folder.

    What is added is started in the `environment` and with the `prefix` of that moment.
    """

    database: str
    folder: Path
    storage: str = ""
    options: tuple[str, ...] = ("--allow-network", "127.0.0.0/8")
    servers: list[FleetProcess] = field(default_factory=list)
    workers: list[FleetProcess] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    prefix: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.storage = self.storage or str(self.folder / "files")

    def add_server(self, *options: str) -> FleetProcess:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.bases.append(f"http://127.0.0.1:{port}")
        made = self._process("serve", "--workers", "0", "--port", str(port), *options)
        self.servers.append(made)
        return made

    def add_worker(self, *options: str) -> FleetProcess:
        made = self._process("worker", *options)
        self.workers.append(made)
        return made

    def wait(self, patience: float = 60) -> None:
        """Come back when every server answers, and a worker renders."""
        until = time.monotonic() + patience
        for base in self.bases:
            while True:
                try:
                    if submit(base, "waiting", {"prompt": "x", "width": 64, "height": 64}).status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                assert time.monotonic() < until, f"{base} does not come up"
                time.sleep(0.1)  # a process starts in its own time

    def wait_ready(self, patience: float = 60) -> None:
        """Come back when every server says that it is ready, without a task of its own."""
        until = time.monotonic() + patience
        for base in self.bases:
            while True:
                with suppress(httpx2.TransportError):
                    if httpx2.get(f"{base}/readyz", timeout=30).status_code == 200:
                        break
                assert time.monotonic() < until, f"{base} does not get ready"
                time.sleep(0.1)  # a process starts in its own time

    def kill(self) -> None:
        for one in (*self.servers, *self.workers):
            if one.running is not None and one.running.poll() is None:
                one.kill()

    def _process(self, command: str, *options: str) -> FleetProcess:
        place = ("--database", self.database, "--storage", self.storage)
        number = len(self.servers) + len(self.workers)
        words = [*self.prefix, sys.executable, "-m", "fluxwerk", command, *place, *self.options, *options]
        made = FleetProcess(words, self.folder / f"{command}-{number}.log", self.environment)
        made.start()
        return made


def submit(base: str, key: str, body: dict, identity: str | None = None) -> httpx2.Response:
    """Send one submit; the connection is new, as after any crash."""
    headers = {"x-key": key} | ({"idempotency-key": identity} if identity else {})
    return httpx2.post(base + PRO, json=body, headers=headers, timeout=30, verify=TRUST)


class Crowd:
    """Clients that submit tasks and wait for them, and ask another server whenever one does not answer."""

    def __init__(
        self, bases: list[str], tasks: int, accounts: int, webhook: str | None, side: int = 64, first: int = 0
    ) -> None:
        self._bases = bases
        self._side = side
        self._webhook = webhook
        self._accounts = accounts
        self._next = first
        self._orders: list[tuple[str, int]] = []
        self.add(tasks)
        self._lock = threading.Lock()
        self._patience = PATIENCE + TASK_PATIENCE * tasks
        self.tasks: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.troubles: list[str] = []
        # The orders that were refused because their account's slots were taken, and were accepted later.
        self.refused: set[str] = set()

    def add(self, tasks: int) -> None:
        """Have more tasks for the clients."""
        numbers = range(self._next, self._next + tasks)
        self._orders += [(f"account-{number % self._accounts}", number) for number in numbers]
        self._next += tasks

    def run(self, threads: int = 16) -> None:
        """Work until every task has ended."""
        workers = [threading.Thread(target=self._work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def wait(self, identity: str) -> str:
        """Return how a task ends that was submitted elsewhere."""
        return self._waited(random.Random(identity), time.monotonic() + self._patience, identity)

    def _work(self, number: int) -> None:
        dice = random.Random(number)
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            with self._lock:
                if not self._orders:
                    return
                account, order = self._orders.pop()
            size = {"width": self._side, "height": self._side}
            body = {"prompt": f"image {order}", "seed": order, **size, "webhook_url": self._webhook}
            identity = self._submitted(dice, until, account, body, f"order-{order}")
            if identity is not None:
                self.tasks[identity] = account
                self.ended[identity] = self._waited(dice, until, identity)

    def _submitted(self, dice: random.Random, until: float, account: str, body: dict, once: str) -> str | None:
        while time.monotonic() < until:
            try:
                answer = submit(dice.choice(self._bases), account, body, once)
            except httpx2.TransportError:
                time.sleep(0.1)  # a server that is killed comes back
                continue
            if answer.status_code == 200:
                return answer.json()["id"]
            if answer.status_code not in (409, 429, 500, 503):
                self.troubles.append(answer.text)
                return None
            if answer.status_code == 429:
                self.refused.add(once)
            time.sleep(0.2)  # as a polite client
        self.troubles.append(f"{once} was never accepted")
        return None

    def _waited(self, dice: random.Random, until: float, identity: str) -> str:
        while time.monotonic() < until:
            try:
                base = dice.choice(self._bases)
                answer = httpx2.get(f"{base}/v1/get_result", params={"id": identity}, timeout=30, verify=TRUST)
            except httpx2.TransportError:
                time.sleep(0.1)  # a server that is killed comes back
                continue
            if answer.status_code == 200 and answer.json()["status"] != "Pending":
                return answer.json()["status"]
            time.sleep(0.2)  # as a polite client
        return "never"


@contextmanager
def fleet(database: str, folder: Path, servers: int, workers: int, storage: str = "") -> Iterator[Fleet]:
    """Start a fleet; whatever of it runs at the end is killed."""
    made = Fleet(database, folder, storage)
    try:
        for _ in range(servers):
            made.add_server()
        for _ in range(workers):
            made.add_worker()
        made.wait()
        yield made
    finally:
        made.kill()
