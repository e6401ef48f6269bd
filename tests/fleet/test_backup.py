"""A backup of a fleet that is restored on other machines goes on where it was taken."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import httpx2

from support.fleet import Crowd, fleet, submit
from support.postgres import PostgresServer


def test_a_backup_goes_on_where_it_was_taken(server: PostgresServer, database: str, tmp_path: Path) -> None:
    """Images that were ready are there, and tasks that were under way become ready, each charged once."""
    dump = tmp_path / "fluxwerk.dump"
    with fleet(database, tmp_path, 1, 1) as running:
        done = Crowd(running.bases, 4, 1, None)
        done.run()
        running.workers[0].send(signal.SIGSTOP)
        body = {"width": 64, "height": 64}
        answers = [submit(running.bases[0], "key", {"prompt": f"later {number}", **body}) for number in range(4)]
        waiting = {answer.json()["id"] for answer in answers}
        _run(server, "pg_dump", "--format=custom", "--file", dump, database)
        spent = _credits(running.bases[0])
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copytree(tmp_path / "files", restored / "files")
    empty = server.make_database("restored")
    _run(server, "pg_restore", "--no-owner", "--dbname", empty, dump)

    with fleet(empty, restored, 1, 1) as running:
        crowd = Crowd(running.bases, 0, 1, None)
        assert {crowd.wait(identity) for identity in (*done.tasks, *waiting)} == {"Ready"}
        for identity in (*done.tasks, *waiting):
            sample = _result(running.bases[0], identity)["result"]["sample"]
            assert httpx2.get(sample).headers["content-type"] == "image/jpeg"
        assert _credits(running.bases[0]) == spent


def _run(server: PostgresServer, program: str, *words: object) -> None:
    subprocess.run([server.programs / program, *map(str, words)], check=True, capture_output=True)


def _result(base: str, identity: str) -> dict:
    return httpx2.get(f"{base}/v1/get_result", params={"id": identity}).json()


def _credits(base: str) -> float:
    return httpx2.get(f"{base}/v1/credits", headers={"x-key": "key"}).json()["credits"]
