"""A worker whose network is cut: it works in a namespace of its own, and its cable is pulled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.fleet import FleetDatabase
from fluxwerk.server.state.tasks import KEEP
from support.fleet import Crowd, fleet
from support.needed import do_without
from support.network import NEAR, NETWORK, Namespace, namespace
from support.postgres import find_programs, postgres
from support.receiver import receiving
from support.settled import assert_all_is_well, settled

SIDE = 1440


@pytest.fixture
def cable() -> Iterator[Namespace]:
    with namespace() as made:
        if made is None:
            pytest.skip("a network namespace needs root, the program ip, and the right to make one")
        yield made


def test_a_worker_whose_network_is_cut_finds_its_tasks_gone(cable: Namespace, tmp_path: Path) -> None:
    """What it had begun ends elsewhere; when its network is back it drops its late images, and works again."""
    if find_programs() is None:
        do_without("postgresql", "PostgreSQL 15 or later is not installed (apt install postgresql)")
    with postgres(trusted=NETWORK) as server, receiving() as (hook, got):
        near = server.make_database("cut")
        with fleet(near, tmp_path, 1, 1) as running:
            running.database, running.prefix = near.replace("127.0.0.1", NEAR), cable.prefix
            cut = running.add_worker()
            _wait_until(lambda: cut.is_up)
            running.workers[0].end()
            crowd = Crowd(running.bases, 12, 1, hook, SIDE)
            clients = threading.Thread(target=crowd.run)
            clients.start()
            _wait_until(lambda: _running(near) > 0)
            cable.cut()
            running.database, running.prefix = near, ()
            other = running.add_worker()
            clients.join()
            cable.mend()
            # The worker that was cut off may still be about to remove what it brought late.
            assert_all_is_well(running, crowd, got, left=len(crowd.tasks))
            jobs, store = settled(running)
            store.close()
            assert max(job.fence for job in jobs) > 1, "what was begun is taken over"

            assert other.end() == 0
            again = Crowd(running.bases, 1, 1, hook, SIDE, first=12)
            again.run()
            assert list(again.ended.values()) == ["Ready"]
            assert cut.end() == 0
            jobs, store = settled(running)
            tasks = Accounts(store=store).tasks
            # One that it was about to bring when it learned that the task is gone goes with the task.
            late = _images(running.storage) - {job.image for job in jobs}
            assert {name.split(".")[0] for name in late} <= {job.image.split(".")[0] for job in jobs if job.fence > 1}
            later = time.time() + 2 * KEEP
            tasks.forget(later)
            tasks.removals.sweep(later)
            store.close()
            assert _images(running.storage) == set(), "no late image stays"


def _images(storage: str) -> set[str]:
    return {str(file.relative_to(storage)) for file in Path(storage, "images").rglob("*.*")}


def _running(url: str) -> int:
    database = FleetDatabase(url)
    [row] = database.ask("select count(*) as number from task where stage = 'running'")
    database.close()
    return row["number"]


def _wait_until(happens, patience: float = 60) -> None:
    until = time.monotonic() + patience
    while not happens():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.02)  # other processes work
