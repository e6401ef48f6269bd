"""Gateways that are killed again and again before a service that misbehaves, and what their databases must say."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count

from fluxwerk import AsyncClient, ConnectionFailedError, TaskFailedError
from fluxwerk.imagefile import fault
from fluxwerk.ledger.database import Database
from fluxwerk.server.state.doubts import UpstreamDoubts
from support.process import process

KEY = "the-gateways-own-key"
# Seconds after which a gateway does not come any more, or its images.
PATIENCE = 480
COST = 3_000_000
# A lost answer, a server error and a refusal among submits; polls and downloads that fail; links that are dead.
TROUBLE = """
seed = 11

[[rule]]
on = "submit"
do = "reset"
accepted = true
chance = 0.06

[[rule]]
on = "submit"
do = "status"
status = 500
chance = 0.04

[[rule]]
on = "submit"
do = "status"
status = 429
retry_after = 0
chance = 0.15

[[rule]]
on = "submit"
do = "moderate"
stage = "content"
prompt = "fox number .*7$"

[[rule]]
on = "poll"
do = "status"
status = 500
chance = 0.1

[[rule]]
on = "poll"
do = "expire"
chance = 0.1

[[rule]]
on = "download"
do = "cut"
chance = 0.2
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Killer:
    """Runs a gateway, kills it at moments of chance, and starts it again on the same port and state."""

    def __init__(self, *options: object, kills: int, seed: int = 7) -> None:
        self._port = free_port()
        self._options = (*options, "--port", self._port)
        self._dice = random.Random(seed)
        self._planned = kills
        self._over = threading.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.base = f"http://127.0.0.1:{self._port}"
        self.kills = 0

    def _run(self) -> None:
        while not self._over.is_set():
            with process(*self._options) as (_, running):
                self._up.set()
                life = self._dice.uniform(0.5, 2.5) if self.kills < self._planned else None
                if not self._over.wait(life):
                    running.send_signal(signal.SIGKILL)
                    self.kills += 1

    def prompts(self, fewest: int, first: int = 0, step: int = 1) -> Iterator[str]:
        """Name images to ask for: at least up to number `fewest`, and more until the last kill has happened."""
        for number in count(first, step):
            assert self._thread.is_alive(), "the gateway could not be started again"
            if number >= fewest and self.kills == self._planned:
                return
            yield f"fox number {number}"

    def __enter__(self) -> Killer:  # noqa: PYI034  (used as it is)
        self._thread.start()
        assert self._up.wait(PATIENCE), "the gateway does not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


async def fetch(base: str, prompts: Iterable[str], key: str = "shop") -> tuple[set[str], Counter[str]]:
    """Ask for every image, and return which prompts became one and how the others ended."""
    made, endings = set[str](), Counter[str]()
    async with asyncio.timeout(PATIENCE), AsyncClient(key, base_url=base, timeout=180) as client:
        # The answer says that the gateway keeps keys, so that no lost answer leaves a doubt between the two.
        await client.credits()
        while prompts:
            unsent = []
            async for result in client.generate_many(prompts, model="flux-2-pro", width=64, height=64):
                if result.image:
                    assert fault(result.image.data) is None
                    made.add(str(result.request))
                elif isinstance(result.error, ConnectionFailedError):
                    # Nothing left; the gateway took longer to start than the client waits.
                    unsent.append(str(result.request))
                else:
                    assert isinstance(result.error, TaskFailedError), result.error
                    endings[result.error.details.get("error", "moderated")] += 1
            prompts = unsent
    return made, endings


def check_books(service: Database, gateway: Database, made: set[str], endings: Counter[str]) -> set[str]:
    """Hold that charged is delivered and in doubt and nothing twice; returns the prompts in doubt."""
    bought = service.ask("select prompt, word, settled from task")
    asked = gateway.ask("select id, prompt, word, settled from task")
    listed = {doubt.task for doubt in UpstreamDoubts(gateway).listed()}
    assert max(Counter(task["prompt"] for task in bought).values()) == 1

    delivered = {task["prompt"] for task in asked if task["word"] == "Ready"}
    moderated = {task["prompt"] for task in asked if task["word"] == "Content Moderated"}
    doubtful = {task["prompt"] for task in asked if task["id"] in listed}
    assert delivered == made
    assert delivered | moderated | doubtful == {task["prompt"] for task in asked}
    assert endings["in_doubt"] == len(listed)

    charged = {task["prompt"] for task in bought}
    assert delivered | moderated <= charged <= delivered | moderated | doubtful
    ours, theirs = (base.ask("select sum(spent) as spent from account")[0]["spent"] for base in (gateway, service))
    assert ours - theirs == COST * len(doubtful - charged)
    return doubtful


def most_at_once(service: Database, without: set[str]) -> int:
    """Say how many tasks the service had at work at the same moment, leaving out those of some prompts."""
    rows = service.ask("select prompt, accepted, ready_at from task")
    spans = [(row["accepted"], row["ready_at"]) for row in rows if row["prompt"] not in without]
    return max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans)
