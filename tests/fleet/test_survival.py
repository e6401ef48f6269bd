"""A fleet whose processes die: nothing is lost, nothing is charged twice, and no late worker changes anything.

`FLUXWERK_FLEET_TASKS` makes the first test longer than it is in CI.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fluxwerk.server.state.fleet import FleetDatabase
from support.fleet import Crowd, Fleet, fleet, submit
from support.postgres import PostgresServer
from support.receiver import receiving
from support.settled import SLOTS, assert_all_is_well, most_at_once, settled

TASKS = int(os.environ.get("FLUXWERK_FLEET_TASKS", "150"))
# So many clients for each account that some of them meet slots that are taken.
ACCOUNTS, CLIENTS = 2, 56
KILLS = 4
# How many tasks a worker has begun at most, with two for each of its threads.
BEGUN = 2 * (os.cpu_count() or 1)


class Reaper(threading.Thread):
    """Kills a process of a fleet every second and starts it again; one worker is stopped for 20 s instead.

    On a machine where a start takes long it waits, so that never more than two are down.
    """

    def __init__(self, fleet: Fleet, seed: int) -> None:
        super().__init__()
        self._fleet = fleet
        self._dice = random.Random(seed)
        self.ending = threading.Event()
        self.kills = 0

    def run(self) -> None:
        stopped, *others = self._fleet.workers
        stopped.send(signal.SIGSTOP)
        began = time.monotonic()
        while not self.ending.wait(1.0):
            if stopped not in others and time.monotonic() - began > 20:
                stopped.send(signal.SIGCONT)
                others.append(stopped)
            alive = [one for one in (*self._fleet.servers, *others) if one.is_up]
            if len(alive) + 2 < len(self._fleet.servers) + len(others):
                continue
            victim = self._dice.choice(alive)
            victim.kill()
            victim.start()
            self.kills += 1
        stopped.send(signal.SIGCONT)


def test_every_task_ends_once_while_processes_die(database: str, tmp_path: Path) -> None:
    """More clients than an account has slots ask every server; they get all of the slots, and not one more."""
    with receiving() as (hook, got), fleet(database, tmp_path, 3, 4) as running:
        crowd, reaper = Crowd(running.bases, TASKS, ACCOUNTS, hook), Reaper(running, seed=7)
        clients = threading.Thread(target=crowd.run, args=(CLIENTS,))
        for worker in running.workers:
            worker.send(signal.SIGSTOP)
        clients.start()
        _await(lambda: bool(crowd.refused))
        for worker in running.workers:
            worker.send(signal.SIGCONT)
        reaper.start()
        clients.join()
        while reaper.is_alive() and reaper.kills < KILLS:
            # Where a start takes long, the first tasks may have ended before.
            crowd.add(CLIENTS)
            crowd.run(CLIENTS)
        reaper.ending.set()
        reaper.join()
        assert reaper.kills >= KILLS
        jobs, store = settled(running)
        store.close()
        assert most_at_once(jobs) == SLOTS
        assert_all_is_well(running, crowd, got, left=BEGUN * reaper.kills)


def test_a_worker_that_was_stopped_finds_its_tasks_gone(database: str, tmp_path: Path) -> None:
    """What a stopped worker had begun ends elsewhere, and what it brings late is discarded."""
    with receiving() as (hook, got), fleet(database, tmp_path, 1, 1) as running:
        slow = running.workers[0]
        crowd = Crowd(running.bases, 12, 1, hook)
        clients = threading.Thread(target=crowd.run)
        clients.start()
        until = time.monotonic() + 30
        while not crowd.tasks and time.monotonic() < until:
            time.sleep(0.01)  # until the first task is accepted
        slow.send(signal.SIGSTOP)
        running.add_worker()
        clients.join()
        slow.send(signal.SIGCONT)
        assert slow.end() == 0
        assert_all_is_well(running, crowd, got)


def test_a_worker_that_pauses_for_a_moment_keeps_its_tasks(database: str, tmp_path: Path) -> None:
    """A worker that is slow is not taken for one that is dead, though another one could have its tasks."""
    with receiving() as (hook, got), fleet(database, tmp_path, 1, 2) as running:
        crowd = Crowd(running.bases, 20, 1, hook)
        clients = threading.Thread(target=crowd.run)
        clients.start()
        time.sleep(0.5)  # while it works
        running.workers[0].send(signal.SIGSTOP)
        time.sleep(4)  # less than the silence after which it would be taken for dead
        running.workers[0].send(signal.SIGCONT)
        clients.join()
        jobs, store = settled(running)
        # The fence rises once when a task is taken up; it would rise again for another worker.
        assert {job.fence for job in jobs} == {1}
        store.close()
        assert_all_is_well(running, crowd, got)


def test_nothing_is_lost_when_the_database_restarts(server: PostgresServer, database: str, tmp_path: Path) -> None:
    with receiving() as (hook, got), fleet(database, tmp_path, 2, 2) as running:
        crowd = Crowd(running.bases, 60, 2, hook)
        clients = threading.Thread(target=crowd.run)
        clients.start()
        for _ in range(2):
            time.sleep(2)  # while tasks are accepted and rendered
            server.stop("immediate")
            server.start()
        clients.join()
        assert_all_is_well(running, crowd, got)


def test_a_server_and_a_worker_end_in_good_order(database: str, tmp_path: Path) -> None:
    """While others go on, a SIGTERM ends a server and a worker, as in a deployment, and nothing is lost."""
    with receiving() as (hook, got), fleet(database, tmp_path, 2, 2) as running:
        crowd = Crowd(running.bases, 40, 2, hook)
        clients = threading.Thread(target=crowd.run)
        clients.start()
        running.add_worker()
        assert running.workers[0].end() == 0
        assert running.servers[0].end() == 0
        running.servers[0].start()
        clients.join()
        assert_all_is_well(running, crowd, got)


def test_a_worker_ends_however_early_it_is_asked_to(database: str, tmp_path: Path) -> None:
    with fleet(database, tmp_path, 1, 1) as running:
        worker = running.workers[0]
        for _ in range(5):
            until = time.monotonic() + 30
            while not worker.is_up and time.monotonic() < until:
                time.sleep(0.001)  # a process starts in its own time
            assert worker.end(20) == 0
            worker.start()


def test_an_idle_worker_ends_in_time_while_its_database_is_away(
    server: PostgresServer, database: str, tmp_path: Path
) -> None:
    with fleet(database, tmp_path, 0, 0) as running:
        worker = running.add_worker()
        _await(lambda: worker.is_up)
        with closing(FleetDatabase(database)) as asked:
            _await(lambda: bool(asked.ask("select id from procrastinate_workers")))
        server.stop("immediate")
        try:
            # Kubernetes kills after 30 s.
            assert worker.end(30) == 0
        finally:
            server.start()


def test_a_model_without_a_worker_is_a_503_that_says_so(database: str, tmp_path: Path) -> None:
    with fleet(database, tmp_path, 1, 1) as running:
        running.workers[0].end()
        until = time.monotonic() + 20
        answer = submit(running.bases[0], "key", {"prompt": "x"})
        # The server asks once a second who is there; until then it accepts, and then the slots are full.
        while answer.status_code in (200, 429) and time.monotonic() < until:
            answer = submit(running.bases[0], "key", {"prompt": "x"})
        assert (answer.status_code, answer.json()["error"]) == (503, "no_worker")
        assert "No worker serves flux-2-pro" in answer.json()["message"]


def _await(happens: Callable[[], bool], patience: float = 60) -> None:
    until = time.monotonic() + patience
    while not happens():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.02)  # other processes work
