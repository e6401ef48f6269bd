"""A real process is killed at every point between two moves; the server's books say whether anything was lost."""

from __future__ import annotations

import multiprocessing
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from fluxwerk.batch import plan
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.server.loopback import loopback
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.task import TaskRecord as Accepted
from fluxwerk.testing.face_to_face import Blank
from support import deadly, judge

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")

PATIENCE = 30.0
ROWS = ["one", "two", "three", "busy", "moderated", "four", "five", "six"]
PLACES = [
    *(f"{when} {move}" for move in deadly.TRANSITIONS if move not in ("refused", "doubted", "expired") for when in
      ("before", "inside")),
    *(f"{when} {what}" for what in ("submit", "poll", "fetch", "keep") for when in ("before", "after")),
    *(f"told {kind}" for kind in ("submitting", "submitted", "ready", "saved", "failed")),
]  # fmt: skip


@pytest.fixture(scope="module")
def spawn() -> Callable[..., Any]:
    """Start a worker in a process of its own; they are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.deadly", "httpx2", "anyio", "rich"])

    def start(*arguments: object) -> Any:
        process = context.Process(target=deadly.work, args=arguments, daemon=True)
        process.start()
        return process

    return start


class House:
    """A server whose books can be read, and a ledger that is about to be carried."""

    def __init__(self, folder: Path, base: str, books: Accounts, spawn: Callable[..., Any]) -> None:
        self.path, self.folder, self.base, self._books = folder / "a.ledger", folder / "images", base, books
        self.ledger = Ledger.open(self.path)
        self._key = f"key-{secrets.token_hex(8)}"
        self._spawn = spawn

    @property
    def accepted(self) -> list[Accepted]:
        account = self._books.account(self._key)
        assert account is not None
        return [job for job in self._books.tasks.all(0.0) if job.account == account.id]

    def plan(self, prompts: list[str]) -> None:
        plan(self.ledger, [{"prompt": prompt, "width": 64, "height": 64} for prompt in prompts])

    def start(self, point: deadly.Point | None = None, breath: Any = None) -> Any:
        return self._spawn(str(self.path), self.base, str(self.folder), self._key, point, breath)

    def finish(self) -> None:
        process = self.start()
        process.join(PATIENCE)
        assert process.exitcode == 0

    def assert_all_is_well_after_settling(self) -> int:
        judge.judge(self.ledger, self.accepted)
        doubts = judge.settle_by_the_accounts(self.ledger, self.accepted)
        if doubts:
            self.finish()
        judge.judge(self.ledger, self.accepted)
        sums = self.ledger.budget.sums()
        assert sums.committed == judge.charged(self.accepted), "the ledger and the books agree to the credit"
        assert sums.count(Stage.SAVED) + sums.count(Stage.FAILED) == sums.count(), "nothing was lost"
        return doubts


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Accounts]]:
    books = Accounts()
    with loopback(Blank(), accounts=books) as base:
        yield base, books


@pytest.fixture
def house(tmp_path: Path, server: tuple[str, Accounts], spawn: Callable[..., Any]) -> Iterator[House]:
    built = House(tmp_path, *server, spawn)
    yield built
    built.ledger.close()


@pytest.mark.parametrize("place", PLACES)
def test_a_process_killed_anywhere_loses_nothing_and_buys_nothing_twice(house: House, place: str) -> None:
    house.plan(ROWS)
    process = house.start(deadly.Point(place))
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL, "the point was passed"

    house.finish()

    doubts = house.assert_all_is_well_after_settling()
    assert doubts <= 8
    assert house.ledger.budget.sums().count(Stage.FAILED) <= 1


@pytest.mark.parametrize("place", PLACES)
def test_beside_a_second_process_a_killed_one_loses_nothing_either(house: House, place: str) -> None:
    house.plan(ROWS)
    heard, breath = multiprocessing.Pipe(duplex=False)
    doomed = house.start(deadly.Point(place), breath)
    breath.close()
    assert wait([heard, doomed.sentinel], PATIENCE)
    other = house.start()
    other.join(PATIENCE)
    doomed.join(PATIENCE)

    assert other.exitcode == 0
    assert doomed.exitcode in (0, -signal.SIGKILL)
    house.assert_all_is_well_after_settling()


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_kill_while_a_lost_answer_is_recorded_leaves_a_doubt(house: House, when: str) -> None:
    """A process killed while it writes down a lost answer leaves a doubt."""
    house.plan(["lost", "one"])
    process = house.start(deadly.Point(f"{when} doubted"))
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL

    house.finish()

    assert judge.prompts(house.ledger, Stage.DOUBTFUL) >= {"lost"}
    house.assert_all_is_well_after_settling()


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_process_killed_while_it_replaces_a_dead_link_loses_nothing(house: House, when: str) -> None:
    house.plan(["one", "two"])
    house.start(deadly.Point("told ready")).join(PATIENCE)
    with house.ledger.database.write() as transaction:
        assert transaction.run("update jobs set expires = 1 where stage = 'ready'") > 0
    process = house.start(deadly.Point(f"{when} expired"))
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL

    house.finish()

    house.assert_all_is_well_after_settling()


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_process_killed_while_it_writes_down_a_refusal_charges_nothing(house: House, when: str) -> None:
    house.plan(["one"])
    with house.ledger.database.write() as transaction:
        transaction.run("""update jobs set request = '{"prompt":"one","width":"wide"}'""")
    process = house.start(deadly.Point(f"{when} refused"))
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL

    house.finish()

    assert judge.charged(house.accepted) == 0
    assert house.ledger.budget.sums().jobs == {Stage.DOUBTFUL: 1}


def test_the_jobs_of_a_dead_process_are_taken_over_when_its_lease_ends(house: House) -> None:
    house.plan(["one", "two"])
    house.start(deadly.Point("told submitted")).join(PATIENCE)
    began = time.monotonic()

    house.finish()

    # With the default lease of six seconds the same takes less than ten.
    assert time.monotonic() - began < deadly.LEASE * 10 / 6 + 2
    assert house.assert_all_is_well_after_settling() <= 1


def test_a_storm_of_fifty_kills_over_a_thousand_jobs_loses_nothing(house: House) -> None:
    chance = random.Random(20261123)
    house.plan([f"image {number}" for number in range(1000)])
    places = ["before submitted", "inside submitting", "after submit", "after poll", "before ready", "inside saved",
              "after keep", "told submitted", "before fetch", "inside submitted"]  # fmt: skip
    kills = 0
    running = []
    while kills < 50:
        running = [process for process in running if process.is_alive()]
        while len(running) < 2:
            running.append(house.start(deadly.Point(chance.choice(places), chance.randrange(3, 18))))
        fallen = set(wait([process.sentinel for process in running], PATIENCE))
        assert fallen
        for process in running:
            if process.sentinel in fallen:
                process.join()
                kills += process.exitcode == -signal.SIGKILL
        if not house.ledger.budget.sums().count(Stage.PLANNED):
            break
    for process in running:
        process.kill()
        process.join()
    house.finish()

    doubts = house.assert_all_is_well_after_settling()
    assert kills >= 50
    assert doubts < 1000
