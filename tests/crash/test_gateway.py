"""A gateway is killed again and again before a service that misbehaves: nothing is bought twice, and all is accounted.

The service and the gateway are processes of their own.  Their databases say afterwards what was charged, what was
delivered and what is in doubt.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import sys
import threading
from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from fluxwerk import AsyncClient, TaskFailedError
from fluxwerk.imagefile import fault
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.doubts import UpstreamDoubts
from support.process import process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")

KEY = "the-gateways-own-key"
IMAGES = 60
KILLS = 4
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

    def __init__(self, *options: object) -> None:
        self._port = free_port()
        self._options = (*options, "--port", self._port)
        self._dice = random.Random(7)
        self._over = threading.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.base = f"http://127.0.0.1:{self._port}"
        self.kills = 0

    def _run(self) -> None:
        while not self._over.is_set():
            with process(*self._options) as (_, running):
                self._up.set()
                life = self._dice.uniform(0.5, 2.5) if self.kills < KILLS else None
                if not self._over.wait(life):
                    running.send_signal(signal.SIGKILL)
                    self.kills += 1

    def __enter__(self) -> Killer:  # noqa: PYI034  (used as it is)
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


async def fetch(base: str) -> tuple[set[str], Counter[str]]:
    """Ask for every image, and say which prompts became one and how the others ended."""
    made, endings = set[str](), Counter[str]()
    async with AsyncClient("shop", base_url=base, timeout=120) as client:
        prompts = [f"fox number {number}" for number in range(IMAGES)]
        async for result in client.generate_many(prompts, model="flux-2-pro", width=64, height=64):
            if result.image:
                assert fault(result.image.data) is None
                made.add(str(result.request))
            else:
                assert isinstance(result.error, TaskFailedError), result.error
                details = result.error.details
                endings[details.get("error", "moderated")] += 1
    return made, endings


def rows(folder: Path, sql: str) -> list[dict]:
    with closing(StateFile(folder / "state.db")) as database:
        return [dict(row) for row in database.ask(sql)]


@pytest.mark.parametrize("keeps_keys", [False, True], ids=["live", "keeps-keys"])
def test_charged_is_delivered_and_in_doubt_and_nothing_twice(keeps_keys, tmp_path):
    script, key = tmp_path / "trouble.toml", tmp_path / "key"
    script.write_text(TROUBLE)
    key.write_text(KEY)
    key.chmod(0o600)
    theirs, ours = tmp_path / "service", tmp_path / "gateway"
    keeping = "--idempotency" if keeps_keys else "--no-idempotency"
    service = ("--key", KEY, "--state", theirs, "--seconds", 0.3, "--trouble", script, keeping)
    with process(*service) as (upstream, _):
        named = ("--engine", "upstream", "--upstream", upstream, "--upstream-key-file", key)
        with Killer(*named, "--key", "shop", "--state", ours) as killer:
            made, endings = asyncio.run(fetch(killer.base))
    assert killer.kills == KILLS

    bought = rows(theirs, "select prompt, word, settled from task")
    asked = rows(ours, "select id, prompt, word, settled from task")
    with closing(StateFile(ours / "state.db")) as database:
        doubts = {doubt.task for doubt in UpstreamDoubts(database).listed()}

    assert len(asked) == IMAGES
    assert max(Counter(task["prompt"] for task in bought).values()) == 1
    delivered = {task["prompt"] for task in asked if task["word"] == "Ready"}
    moderated = {task["prompt"] for task in asked if task["word"] == "Content Moderated"}
    doubtful = {task["prompt"] for task in asked if task["id"] in doubts}
    assert delivered == made
    assert delivered | moderated | doubtful == {task["prompt"] for task in asked}
    assert endings["in_doubt"] == len(doubts)

    charged = {task["prompt"] for task in bought}
    assert delivered | moderated <= charged <= delivered | moderated | doubtful
    if keeps_keys:
        assert doubts == set()
    spent = {name: rows(folder, "select sum(spent) as spent from account")[0]["spent"] for name, folder in
             (("theirs", theirs), ("ours", ours))}  # fmt: skip
    uncharged = len(doubtful - charged)
    assert spent["ours"] - spent["theirs"] == int(Decimal(3) * uncharged * 1_000_000)
