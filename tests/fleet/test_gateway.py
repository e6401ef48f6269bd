"""Two gateways over one PostgreSQL, both killed again and again, share the slots and the doubts of one account."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing

import pytest

from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.fleet import FleetDatabase
from support.gateways import KEY, TROUBLE, Killer, check_books, fetch
from support.process import process

IMAGES = 24
KILLS = 2


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


async def _fetch_from_each(*killers: Killer) -> tuple[set[str], Counter[str]]:
    parts = (killer.prompts(IMAGES, first, len(killers)) for first, killer in enumerate(killers))
    found = await asyncio.gather(*(fetch(killer.base, part) for killer, part in zip(killers, parts, strict=True)))
    made, endings = zip(*found, strict=True)
    return set.union(*made), sum(endings, Counter())
