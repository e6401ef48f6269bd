"""Two gateways over one PostgreSQL, both killed again and again, share the slots and the doubts of one account."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.fleet import FleetDatabase
from support.fleet import FleetProcess, fleet
from support.gateways import KEY, PATIENCE, TROUBLE, Killer, check_books, fetch, most_at_once
from support.process import process

IMAGES = 24
KILLS = 2
SLOTS = 24
AT_WORK_LEAST = 4
AT_WORK = """
    select count(*) filter (where stage = 'ended') as ended,
        count(*) filter (where worker like :mine and upstream.id is not null and upstream.ended is null) as held
    from task join upstream on upstream.task = task.id
"""
# An ending without an image raises the fence too.
TAKEN_OVER = "select id from task where word = 'Ready' and fence > 1"


@pytest.mark.parametrize("keeps_keys", [False, True], ids=["live", "keeps-keys"])
def test_what_one_gateway_leaves_another_collects_and_nobody_buys_twice(keeps_keys, database, tmp_path):
    script, key, theirs = tmp_path / "trouble.toml", tmp_path / "key", tmp_path / "service"
    script.write_text(TROUBLE)
    key.write_text(KEY)
    key.chmod(0o600)
    keeping = "--idempotency" if keeps_keys else "--no-idempotency"
    service = ("--key", KEY, "--state", theirs, "--seconds", 0.3, "--trouble", script, keeping)
    with process(*service) as (upstream, _):
        named = ("--engine", "upstream", "--upstream", upstream, "--upstream-key-file", key, "--key", "shop")
        place = ("--database", database, "--storage", tmp_path / "images")
        with (
            Killer(*named, *place, kills=KILLS, seed=1) as first,
            Killer(*named, *place, kills=KILLS, seed=2) as second,
        ):
            made, endings = asyncio.run(_fetch_from_each(first, second))
    assert (first.kills, second.kills) == (KILLS, KILLS)
    assert len(made) + endings.total() >= IMAGES

    with closing(StateFile(theirs / "state.db")) as bought, closing(FleetDatabase(database)) as asked:
        doubtful = check_books(bought, asked, made, endings)
    if keeps_keys:
        assert doubtful == set()


@pytest.mark.parametrize("keeps_keys", [False, True], ids=["live", "keeps-keys"])
def test_what_a_killed_worker_leaves_another_collects_within_the_slots_of_the_account(keeps_keys, database, tmp_path):
    script, key, theirs = tmp_path / "trouble.toml", tmp_path / "key", tmp_path / "service"
    script.write_text(TROUBLE)
    key.write_text(bought_with(theirs))
    key.chmod(0o600)
    keeping = "--idempotency" if keeps_keys else "--no-idempotency"
    with process("--state", theirs, "--seconds", 1, "--trouble", script, keeping) as (upstream, _):
        named = ("--engine", "upstream", "--upstream", upstream, "--upstream-key-file", str(key))
        with fleet(database, tmp_path, 0, 0) as running, closing(FleetDatabase(database)) as asked:
            running.add_server()
            workers = [running.add_worker(*named) for _ in range(2)]
            running.wait_ready()
            killing = threading.Thread(target=kill_at_work, args=(workers, asked))
            killing.start()
            made, endings = asyncio.run(_fetch_for_each(running.bases[0], "shop", "blog", "studio"))
            killing.join()
            assert asked.ask(TAKEN_OVER), "the other worker took nothing over"
    assert len(made) + endings.total() == 3 * IMAGES

    with closing(StateFile(theirs / "state.db")) as bought, closing(FleetDatabase(database)) as asked:
        doubtful = check_books(bought, asked, made, endings)
        # A doubt gives its slot back, and the service may be at work on it.
        assert SLOTS // 2 < most_at_once(bought, doubtful) <= SLOTS
    if keeps_keys:
        assert doubtful == set()


def bought_with(theirs: Path) -> str:
    """Make the key of a gateway for which the service itself would take more tasks than the account has slots."""
    added = CliRunner().invoke(group, ["keys", "add", "gateway", "--slots", "200", "--state", str(theirs)])
    return added.stdout


def kill_at_work(workers: list[FleetProcess], asked: FleetDatabase) -> None:
    """Kill a worker midway, while the service has several of its tasks; one may have taken most of them."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for worker in workers:
            [row] = asked.ask(AT_WORK, mine=f"%-{worker.running.pid}-%")
            if row["ended"] >= IMAGES and row["held"] >= AT_WORK_LEAST:
                worker.kill()
                return
        time.sleep(0.01)  # until one has submitted some


async def _fetch_for_each(base: str, *keys: str) -> tuple[set[str], Counter[str]]:
    asked = {key: [f"fox number {number}" for number in range(first, 3 * IMAGES, 3)] for first, key in enumerate(keys)}
    found = await asyncio.gather(*(fetch(base, prompts, key) for key, prompts in asked.items()))
    made, endings = zip(*found, strict=True)
    return set.union(*made), sum(endings, Counter())


async def _fetch_from_each(*killers: Killer) -> tuple[set[str], Counter[str]]:
    parts = (killer.prompts(IMAGES, first, len(killers)) for first, killer in enumerate(killers))
    found = await asyncio.gather(*(fetch(killer.base, part) for killer, part in zip(killers, parts, strict=True)))
    made, endings = zip(*found, strict=True)
    return set.union(*made), sum(endings, Counter())
