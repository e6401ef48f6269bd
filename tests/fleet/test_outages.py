"""What a fleet survives beside processes that die: a store that is closed, and a release that replaces another."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from fluxwerk.server.state.fleet import FleetDatabase
from support.bucket import BucketProcess, bucket_process
from support.fleet import Crowd, fleet
from support.receiver import receiving
from support.release import NEXT, next_release, release_before
from support.settled import assert_all_is_well, settled

OUTAGE = 10.0


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketProcess:
    pytest.importorskip("obstore", reason="the extra storage is not installed")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with bucket_process(tmp_path) as running:
        said = {"ENDPOINT": running.base, "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
        for name, value in (said | {"REGION": "x"}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield running


def test_images_wait_in_the_workers_while_the_store_is_closed(
    database: str, tmp_path: Path, bucket: BucketProcess
) -> None:
    with receiving() as (hook, got), fleet(database, tmp_path, 1, 2, "s3://shop/images") as running:
        crowd = Crowd(running.bases, 60, 2, hook)
        clients = threading.Thread(target=crowd.run)
        clients.start()
        until = time.monotonic() + 30
        while not crowd.ended and time.monotonic() < until:
            time.sleep(0.01)  # until the first task has ended
        bucket.close()
        time.sleep(OUTAGE)
        refused, ended = bucket.refused, len(crowd.ended)
        bucket.open()
        clients.join()
        assert ended < 60, "the store was closed while tasks ran"
        waited = {line.split()[1] for line in refused if line.startswith("PUT") and "/images/" in line}
        assert waited, "images that were made met the closed store"
        jobs, store = settled(running)
        # No worker was taken for dead and no image was made twice: each waited where it was made.
        assert {job.fence for job in jobs} == {1}
        store.close()
        assert_all_is_well(running, crowd, got)


def test_a_release_replaces_the_one_before_while_tasks_run(database: str, tmp_path: Path) -> None:
    """A new release, made up, changes the tables under this one, both work for a while, and this one drains."""
    replace(database, tmp_path, os.environ, next_release(tmp_path / "next"), NEXT)


def test_this_release_replaces_the_one_before_while_tasks_run(database: str, tmp_path: Path) -> None:
    """The one before is the last commit whose tables were one version older, run as it was."""
    before = release_before(tmp_path / "before")
    if before is None:
        pytest.skip("the history of the repository is not here, and with it the release before")
    replace(database, tmp_path, before, os.environ, NEXT - 1)


def replace(database: str, folder: Path, older: Mapping[str, str], newer: Mapping[str, str], tables: int) -> None:
    """Start the newer release beside the older one while tasks run, and end the older one."""
    with receiving() as (hook, got), fleet(database, folder, 0, 0) as running:
        running.environment = older
        running.add_server()
        running.add_worker()
        running.wait()
        assert version(database) == tables - 1
        # Large enough that many are left once the newer release is up.
        crowd = Crowd(running.bases, 80, 2, hook, side=1024)
        clients = threading.Thread(target=crowd.run)
        clients.start()
        running.environment = newer
        running.add_server()
        running.add_worker()
        running.wait()
        assert version(database) == tables
        assert len(crowd.ended) < 80, "tasks run while both releases work"
        (server, new), (worker, _) = running.servers, running.workers
        assert worker.end() == 0
        assert server.end() == 0
        # The old release still starts beside the new tables.
        worker.start()
        until = time.monotonic() + 30
        while not worker.is_up and time.monotonic() < until:
            time.sleep(0.1)  # a process starts in its own time
        assert worker.is_up
        del running.bases[0]
        assert new.is_up
        clients.join()
        assert_all_is_well(running, crowd, got)


def test_a_release_that_the_tables_have_left_behind_does_not_start(database: str, tmp_path: Path) -> None:
    place = ["worker", "--database", database, "--storage", str(tmp_path / "files")]
    newer = next_release(tmp_path / "next", oldest=NEXT)
    with fleet(database, tmp_path, 0, 0) as running:
        running.environment = newer
        one = running.add_worker()
        until = time.monotonic() + 30
        while not one.is_up and time.monotonic() < until:
            time.sleep(0.1)  # a process starts in its own time
        assert one.is_up
    old = subprocess.run(
        [sys.executable, "-m", "fluxwerk", *place], capture_output=True, text=True, timeout=30, check=False
    )
    assert old.returncode != 0
    assert f"was written by a newer fluxwerk (version {NEXT} of its tables" in old.stderr


def version(database: str) -> int:
    opened = FleetDatabase(database)
    [row] = opened.ask("select value from fact where name = 'version'")
    opened.close()
    return int(bytes(row["value"]))
