"""Storms of kills whose doubts settle themselves: by kept keys, and by the balance of an account used alone.

The usual storm is small.  FLUXWERK_STORM=full makes each one of fifty kills in a thousand jobs, which takes minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from fluxwerk.batch import plan
from fluxwerk.batch.run import RunOptions
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.protocol.witness import MICRO
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.testing import loopback
from fluxwerk.testing.face_to_face import Blank
from support import deadly, judge
from support.gateways import KEY
from support.process import process as serve

PATIENCE = 300
JOBS, KILLS = (1000, 50) if os.environ.get("FLUXWERK_STORM") == "full" else (120, 5)
PLACES = ["before submitted", "inside submitting", "after submit", "before submit", "after poll", "before ready",
          "inside saved", "after keep", "told submitted", "before fetch", "inside submitted"]  # fmt: skip
KEPT = RunOptions()
ALONE = RunOptions(exclusive=True, witness_after=0.0, steady=0.0)
ALLOWED = RunOptions(exclusive=True, witness_after=0.0, steady=0.0, rebuy=JOBS)
# Of different prices, as in a real manifest: what was charged can then be told apart more often.
SIDES = (64, 1088, 1440, 1712)
NARROW = (64,)


@pytest.fixture
def spawn() -> Iterator[Callable[..., Any]]:
    context, started = multiprocessing.get_context("forkserver"), list[Any]()

    def start(*arguments: Any) -> Any:
        process = context.Process(target=deadly.work, args=arguments, daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def storm(
    folder: Path,
    base: str,
    spawn: Callable[..., Any],
    options: RunOptions,
    seed: int,
    sides: tuple[int, ...] = SIDES,
) -> tuple[Ledger, str]:
    """Kill two processes again and again while they make many images, and let a last one finish."""
    path, key, chance = folder / "a.ledger", f"key-{secrets.token_hex(8)}", random.Random(seed)
    ledger, kills, running = Ledger.open(path), 0, list[Any]()
    plan(ledger, [{"prompt": f"image {n}", "width": sides[n % len(sides)], "height": 1024} for n in range(JOBS)])
    while kills < KILLS and ledger.budget.sums().count(Stage.PLANNED):
        while len(running) < 2:
            point = deadly.Point(chance.choice(PLACES), chance.randrange(3, 18))
            running.append(spawn(str(path), base, str(folder / "images"), key, point, None, options))
        fallen = set(wait([process.sentinel for process in running], PATIENCE))
        assert fallen
        for process in [process for process in running if process.sentinel in fallen]:
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            running.remove(process)
    for process in running:
        process.kill()
        process.join()
    assert kills >= KILLS
    last = spawn(str(path), base, str(folder / "images"), key, None, None, options)
    last.join(PATIENCE)
    assert last.exitcode == 0
    return ledger, key


def charged(accepted: list[TaskRecord]) -> Decimal:
    return judge.charged(accepted)


def bought(books: Accounts) -> list[TaskRecord]:
    return books.tasks.all(0.0)


def test_where_keys_are_kept_a_storm_loses_nothing_and_charges_each_once(tmp_path: Path, spawn: Callable[..., Any]):
    books = Accounts()
    with loopback(Blank(), accounts=books, keeps_keys=True) as base:
        ledger, _ = storm(tmp_path, base, spawn, KEPT, 1)
    with ledger:
        sums = ledger.budget.sums()
        assert sums.jobs == {Stage.SAVED: JOBS}
        assert len(bought(books)) == JOBS
        assert sums.spent == charged(bought(books))
        judge.judge(ledger, bought(books))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_through_our_own_gateway_a_storm_makes_each_image_and_charges_it_once(
    tmp_path: Path, spawn: Callable[..., Any]
):
    """The gateway promises keys to its clients; the service behind it, which plays BFL, promises none."""
    theirs, ours, key = tmp_path / "service", tmp_path / "gateway", tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    with serve("--key", KEY, "--state", theirs, "--no-idempotency") as (upstream, _):
        named = ("--engine", "upstream", "--upstream", upstream, "--upstream-key-file", key)
        with serve(*named, "--state", ours) as (base, _):
            ledger, _ = storm(tmp_path, base, spawn, KEPT, 3, NARROW)
    with ledger, closing(StateFile(theirs / "state.db")) as service, closing(StateFile(ours / "state.db")) as gateway:
        sums = ledger.budget.sums()
        assert sums.jobs == {Stage.SAVED: JOBS}
        judge.assert_files(ledger)
        for books in (service, gateway):
            assert books.ask("select count(*) as number from task")[0]["number"] == JOBS
            assert books.ask("select sum(spent) as spent from account")[0]["spent"] == sums.spent * MICRO
        bought_prompts = [task["prompt"] for task in service.ask("select prompt from task")]
        assert sorted(bought_prompts) == sorted(judge.prompts(ledger, Stage.SAVED))


def test_before_the_live_service_a_storm_pays_nothing_twice_and_lists_what_was_lost(
    tmp_path: Path, spawn: Callable[..., Any]
):
    """With an allowance no doubt is left either, and the ledger and the books agree to the credit."""
    books = Accounts()
    with loopback(Blank(), accounts=books) as base:
        ledger, key = storm(tmp_path, base, spawn, ALONE, 2)
        with ledger:
            judge.judge(ledger, bought(books))
            paid_without_image = {job.order.prompt for job in bought(books)} - judge.prompts(ledger, Stage.SAVED)
            lost = judge.prompts(ledger, Stage.FAILED)
            doubts = judge.prompts(ledger, Stage.DOUBTFUL)
            assert lost <= paid_without_image <= lost | doubts

            again = spawn(str(tmp_path / "a.ledger"), base, str(tmp_path / "images"), key, None, None, ALLOWED)
            again.join(PATIENCE)

            assert again.exitcode == 0
            sums = ledger.budget.sums()
            assert sums.jobs == {Stage.SAVED: JOBS}
            assert sums.spent == charged(bought(books))
            assert len(bought(books)) == JOBS + len(paid_without_image)
