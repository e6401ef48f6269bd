"""Applications over all servers of a fleet: one budget, one queue, and turns that are fair between them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group
from support.asking import PRO
from support.fleet import fleet as processes
from support.postgres import PostgresServer
from support.process import process
from support.settled import settled
from support.turns import IN_HAND, turn_of

SMALL = {"prompt": "x", "width": 64, "height": 64}
# A hundred of them take longer than a second.
LARGE = {"prompt": "x", "width": 1440, "height": 1440}
SERVERS = 3


@pytest.fixture(scope="module")
def fleet(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """Run servers that share one state, the first of which renders; yields its database and their addresses."""
    database = server.make_database("applications")
    with ExitStack() as opened:
        place = ("--database", database, "--storage", tmp_path_factory.mktemp("images"), "--queue", 50)
        bases = [opened.enter_context(process(*place, "--workers", int(number == 0)))[0] for number in range(SERVERS)]
        for base in bases:
            await_worker(base)
        yield database, bases


def await_worker(base: str) -> None:
    """Come back when a server knows of a worker; before, it answers 503 to submits."""
    until = time.monotonic() + 60
    while httpx2.get(f"{base}/readyz", timeout=30).status_code != 200:
        assert time.monotonic() < until, f"{base} does not become ready"
        time.sleep(0.05)  # a worker gives its first sign of life in its own time


@pytest.fixture
def database(fleet: tuple[str, list[str]]) -> str:
    return fleet[0]


@pytest.fixture
def bases(fleet: tuple[str, list[str]]) -> list[str]:
    return fleet[1]


def run(database: str, *words: object) -> str:
    done = CliRunner().invoke(group, ["keys", *map(str, words), "--database", database])
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def submit_to_all(bases: list[str], key: str, count: int, body: dict = SMALL) -> list[httpx2.Response]:
    """Send submits side by side, to one server after the other."""

    async def send() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(timeout=60, headers={"x-key": key}) as http:
            turns = (http.post(bases[number % len(bases)] + PRO, json=body) for number in range(count))
            return await asyncio.gather(*turns)

    return asyncio.run(send())


def test_a_hundred_submits_to_all_servers_against_credits_for_ten_take_ten(bases, database):
    key = run(database, "add", "shop", "--budget", 30, "--period", "month")
    answers = submit_to_all(bases, key, 100)
    assert Counter(answer.status_code for answer in answers) == {200: 10, 402: 90}
    for base in bases:
        assert httpx2.get(base + "/v1/credits", headers={"x-key": key}).json()["credits"] == 0
    assert ",shop,flux-2-pro,10,30" in run(database, "spend", "--csv")


def test_tasks_beyond_the_slots_are_rendered_in_the_end(bases, database):
    key = run(database, "add", "blog", "--slots", 2, "--priority", 5)
    tasks = [answer.json() for answer in submit_to_all(bases, key, 12)]
    with httpx2.Client(timeout=60) as http:
        for task in tasks:
            while (polled := http.get(task["polling_url"]).json())["status"] == "Pending":
                pass
            assert polled["status"] == "Ready"


def test_a_revoked_key_is_refused_by_every_server(bases, database):
    key = run(database, "add", "gone")
    run(database, "revoke", "gone")
    assert [answer.status_code for answer in submit_to_all(bases, key, SERVERS)] == [403] * SERVERS


def test_a_server_of_a_fleet_is_ready_once_a_worker_lives(bases):
    for base in bases:
        with httpx2.Client(base_url=base) as http:
            while (answer := http.get("/readyz")).status_code != 200:
                assert set(answer.json()["checks"].items()) - {("workers", "none")} <= {
                    (name, "ok") for name in ("accepting", "database", "storage", "workers")
                }
        assert answer.json()["status"] == "ready"


def test_many_tasks_of_one_key_delay_anothers_by_one_render_and_a_second(server, tmp_path):
    """In a fleet too, where a worker in another process takes what PostgreSQL hands over."""
    database = server.make_database("turns")
    with processes(database, tmp_path, 1, 1) as running:
        one, other = run(database, "add", "one", "--priority", 5, "--slots", 100), run(database, "add", "other")
        answers = submit_to_all(running.bases, one, 100, LARGE)
        assert Counter(answer.status_code for answer in answers) == {200: 100}
        seen = [seconds_until_ready(running.bases, other) for _ in range(3)]
        jobs, store = settled(running)
        store.close()
        assert sum(job.began is None for job in jobs) > IN_HAND, "the many still wait"
    for identity, seconds in seen:
        turn = turn_of(jobs, identity)
        assert turn.before_it <= IN_HAND
        assert seconds - turn.rendered <= turn.one_render + 1


def seconds_until_ready(bases: list[str], key: str) -> tuple[str, float]:
    """Submit one task; returns its id, and after how many seconds its client saw it ready."""
    begun = time.monotonic()
    (answer,) = submit_to_all(bases, key, 1, LARGE)
    with httpx2.Client(timeout=60) as http:
        while http.get(answer.json()["polling_url"]).json()["status"] == "Pending":
            pass
    return answer.json()["id"], time.monotonic() - begun
