"""Storms of fifty kills whose doubts settle themselves: by kept keys, and by the balance of an account used alone."""

from __future__ import annotations

import multiprocessing
import random
import secrets
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from fluxwerk.batch import plan
from fluxwerk.batch.run import RunOptions
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.testing import loopback
from fluxwerk.testing.face_to_face import Blank
from support import deadly, judge

PATIENCE = 300
KILLS = 50
JOBS = 1000
PLACES = ["before submitted", "inside submitting", "after submit", "before submit", "after poll", "before ready",
          "inside saved", "after keep", "told submitted", "before fetch", "inside submitted"]  # fmt: skip
KEPT = RunOptions()
ALONE = RunOptions(exclusive=True, witness_after=0.0, steady=0.0)
ALLOWED = RunOptions(exclusive=True, witness_after=0.0, steady=0.0, rebuy=JOBS)
# Of different prices, as in a real manifest: what was charged can then be told apart more often.
SIDES = (64, 1088, 1440, 1712)


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


def storm(folder: Path, base: str, spawn: Callable[..., Any], options: RunOptions, seed: int) -> tuple[Ledger, str]:
    """Kill two processes fifty times while they make a thousand images, and let a last one finish."""
    path, key, chance = folder / "a.ledger", f"key-{secrets.token_hex(8)}", random.Random(seed)
    ledger, kills, running = Ledger.open(path), 0, list[Any]()
    plan(ledger, [{"prompt": f"image {n}", "width": SIDES[n % 4], "height": 1024} for n in range(JOBS)])
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
