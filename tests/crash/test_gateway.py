"""A gateway is killed again and again before a service that misbehaves: nothing is bought twice, and all is accounted.

The service and the gateway are processes of their own.  Their databases say afterwards what was charged, what was
delivered and what is in doubt.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing

import pytest

from fluxwerk.server.state.dialect import StateFile
from support.gateways import KEY, TROUBLE, Killer, check_books, fetch
from support.process import process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")

IMAGES = 60
KILLS = 4


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
        with Killer(*named, "--key", "shop", "--state", ours, kills=KILLS) as killer:
            made, endings = asyncio.run(fetch(killer.base, killer.prompts(IMAGES)))
    assert killer.kills == KILLS
    assert len(made) + endings.total() >= IMAGES

    with closing(StateFile(theirs / "state.db")) as bought, closing(StateFile(ours / "state.db")) as asked:
        doubtful = check_books(bought, asked, made, endings)
        assert asked.ask("select count(*) as number from task")[0]["number"] == len(made) + endings.total()
    if keeps_keys:
        assert doubtful == set()
