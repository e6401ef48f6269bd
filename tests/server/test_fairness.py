"""Many tasks of one key beside one of another, and many submits beside few credits, in a real process."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.store import DiskStore
from support.asking import PRO
from support.process import process
from support.turns import IN_HAND, turn_of

# The whole of the claim takes minutes on two cores: FLUXWERK_FAIRNESS=10000.
MANY = int(os.environ.get("FLUXWERK_FAIRNESS", "300"))
AT_A_TIME = 32
# So large that the slots of the many take longer than a second.
SIDE = 1440


def key_of(state: Path, name: str, *options: object) -> str:
    words = ["keys", "add", name, *options, "--state", state]
    return CliRunner().invoke(group, [str(word) for word in words]).stdout.strip()


def submits(base: str, key: str, count: int, side: int = 64) -> list[httpx2.Response]:
    """Send submits side by side."""
    body = {"prompt": "x", "width": side, "height": side}

    async def send() -> list[httpx2.Response]:
        turn = asyncio.Semaphore(AT_A_TIME)
        async with httpx2.AsyncClient(timeout=60) as http:

            async def one() -> httpx2.Response:
                async with turn:
                    return await http.post(base + PRO, json=body, headers={"x-key": key})

            return await asyncio.gather(*(one() for _ in range(count)))

    return asyncio.run(send())


def seconds_until_ready(base: str, key: str) -> tuple[str, float]:
    """Submit one task; returns its id, and after how many seconds its client saw it ready."""
    begun = time.monotonic()
    (answer,) = submits(base, key, 1, SIDE)
    with httpx2.Client(timeout=60) as http:
        while http.get(answer.json()["polling_url"]).json()["status"] == "Pending":
            pass
    return answer.json()["id"], time.monotonic() - begun


def test_many_tasks_of_one_key_delay_anothers_by_one_render_and_a_second(tmp_path):
    """A render takes as long as it does while all of them share the cores."""
    one, other = key_of(tmp_path, "one", "--priority", 5, "--slots", 100), key_of(tmp_path, "other")
    with process("--state", tmp_path, "--queue", MANY) as (base, _):
        answers = submits(base, one, MANY, SIDE)
        assert Counter(answer.status_code for answer in answers) == {200: MANY}
        seen = [seconds_until_ready(base, other) for _ in range(3)]
        last = httpx2.get(answers[-1].json()["polling_url"]).json()
        assert last["status"] == "Pending"
        assert last["details"]["position"] > MANY // 4
    with closing(DiskStore(tmp_path)) as store:
        jobs = Accounts(store=store).tasks.all(0.0)
    for identity, seconds in seen:
        turn = turn_of(jobs, identity)
        assert turn.before_it <= IN_HAND
        assert seconds - turn.rendered <= turn.one_render + 1


@pytest.mark.parametrize("period", ["month", "total"])
def test_a_hundred_submits_against_credits_for_ten_take_ten(tmp_path, period):
    key = key_of(tmp_path, "one", "--budget", 30, "--period", period, "--slots", 100)
    with process("--state", tmp_path) as (base, _):
        answers = submits(base, key, 100)
        assert Counter(answer.status_code for answer in answers) == {200: 10, 402: 90}
        assert httpx2.get(base + "/v1/credits", headers={"x-key": key}).json()["credits"] == 0
