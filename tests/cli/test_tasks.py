"""`fluxwerk tasks`: the doubts of a gateway, listed and settled by its operator."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result

from fluxwerk.cli.group import group
from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.store import DiskStore
from fluxwerk.server.state.upstream import RowJournal
from fluxwerk.types import Pool
from support.asking import ask, face, json_of, post
from support.process import process


@pytest.fixture
def doubtful(tmp_path: Path) -> tuple[Path, str]:
    """The state of a gateway that was stopped, and a task of it that is in doubt."""
    folder = tmp_path / "state"
    with closing(DiskStore(folder)) as store:
        of = face(accounts=Accounts(store=store))
        of._stop_working()
        identity = json_of(post(of, {"prompt": "a fox"}))["id"]
        journal, job = RowJournal(store, of.clock.now), of.state.claim()
        asyncio.run(journal.find(identity))
        asyncio.run(journal.intend(identity, Pool("standard", 24)))
        asyncio.run(journal.doubt(identity, "the line broke"))
        of.state.conclude(job, Ending("Error", {"error": "in_doubt"}, paid=True), job.fence)
    return folder, identity


def tasks(*words: object) -> Result:
    return CliRunner().invoke(group, ["tasks", *map(str, words)])


def spent(folder: Path) -> float:
    with closing(DiskStore(folder)) as store:
        return 1_000_000 - json_of(ask(face(accounts=Accounts(store=store)), "GET", "/v1/credits"))["credits"]


def test_a_task_in_doubt_is_listed_with_what_may_have_been_charged(doubtful):
    folder, identity = doubtful
    said = tasks("doubts", "--state", folder)
    assert said.exit_code == 0
    assert identity in said.stdout
    assert "flux-2-pro  3 credits ($0.03)  the line broke" in said.stdout
    row = json.loads(tasks("doubts", "--state", folder, "--json").stdout)
    assert (row["task"], row["booked"], row["reason"]) == (identity, 3, "the line broke")


@pytest.mark.parametrize(("how", "cost"), [("--charged", 3), ("--not-charged", 0)])
def test_settling_a_task_keeps_its_cost_or_gives_it_back(doubtful, how, cost):
    folder, identity = doubtful
    assert tasks("settle", identity, how, "--state", folder).exit_code == 0
    assert spent(folder) == cost
    assert "No task is in doubt." in tasks("doubts", "--state", folder).stderr
    again = tasks("settle", identity, how, "--state", folder)
    assert again.exit_code == 2
    assert "is not in doubt" in again.stderr


@pytest.mark.parametrize("how", [[], ["--charged", "--not-charged"]])
def test_settling_needs_exactly_one_answer(doubtful, how):
    folder, identity = doubtful
    assert "Exactly one of" in tasks("settle", identity, *how, "--state", folder).stderr
    assert spent(folder) == 3


def test_a_folder_without_a_state_is_named(tmp_path):
    said = tasks("doubts", "--state", tmp_path)
    assert said.exit_code == 2
    assert "has no state of a server" in said.stderr


def test_a_folder_that_was_typed_wins_over_the_database_of_the_environment(doubtful, monkeypatch):
    folder, identity = doubtful
    monkeypatch.setenv("FLUXWERK_DATABASE", "postgresql://nobody.invalid/fluxwerk")
    assert identity in tasks("doubts", "--state", folder).stdout


def test_the_operator_settles_beside_a_gateway_that_runs(doubtful):
    folder, identity = doubtful
    with process("--state", folder) as (base, _):
        assert httpx2.get(f"{base}/healthz").is_success
        assert tasks("settle", identity, "--not-charged", "--state", folder).exit_code == 0
    assert spent(folder) == 0


def test_a_place_is_needed_and_only_one():
    assert "Exactly one of --state DIR and --database URL" in tasks("doubts").stderr
