"""`fluxwerk keys` in the state of a server, also while it runs."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result

from fluxwerk.cli.group import group
from support.asking import PRO
from support.process import process

SMALL = {"prompt": "x", "width": 64, "height": 64}


@pytest.fixture
def state(tmp_path) -> Path:
    return tmp_path / "state"


def run(*words: object) -> Result:
    return CliRunner().invoke(group, ["keys", *map(str, words)])


def add(state: Path, name: str = "shop", *options: object) -> str:
    done = run("add", name, *options, "--state", state)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def listed(state: Path) -> list[dict]:
    return [json.loads(line) for line in run("list", "--json", "--state", state).stdout.splitlines()]


def test_an_application_is_added_with_what_it_may_use(state):
    options = [
        "--budget",
        "20",
        "--period",
        "month",
        "--slots",
        "6",
        "--models",
        "flux-2-pro,flux-2-klein-4b",
        "--priority",
        "5",
    ]
    key = add(state, "shop", *options, "--rate", 60, "--max-body", 50, "--keep", 86400)
    (row,) = listed(state)
    del row["created"], row["keys"][0]["created"]
    assert row == {
        "name": "shop",
        "budget": 20,
        "period": "month",
        "slots": 6,
        "models": ["flux-2-klein-4b", "flux-2-pro"],
        "priority": 5,
        "rate": 60,
        "largest_body": 50 * 2**20,
        "keep": 86400,
        "spent": 0,
        "revoked": None,
        "keys": [{"shown": f"bfl_…{key[-4:]}", "ends": None}],
    }
    shown = run("list", "--state", state).stdout
    assert "20 credits a month; 6 slots; flux-2-klein-4b, flux-2-pro; priority 5; 60 submits a minute" in shown
    assert key not in shown


def test_a_list_tells_when_a_key_ends_and_leaves_out_what_has_ended(state):
    first = add(state)
    second = run("rotate", "shop", "--overlap", "0", "--state", state).stdout.strip()
    third = run("rotate", "shop", "--overlap", "24", "--state", state).stdout.strip()
    [shop] = listed(state)
    ends = {key["shown"][-4:]: key["ends"] for key in shop["keys"]}
    assert list(ends) == [first[-4:], second[-4:], third[-4:]]
    shown = run("list", "--state", state).stdout
    assert f"shop  bfl_…{second[-4:]} (until {ends[second[-4:]]}), bfl_…{third[-4:]}  created" in shown

    assert run("revoke", "shop", "--state", state).exit_code == 0
    assert "shop  no key  created" in run("list", "--state", state).stdout
    assert len(listed(state)[0]["keys"]) == 3


def test_no_file_of_the_state_holds_a_key(state):
    key = add(state)
    assert not [file for file in state.rglob("*") if file.is_file() and key.encode() in file.read_bytes()]
    assert os.name == "nt" or (state / "state.db").stat().st_mode & 0o077 == 0


def test_running_servers_see_every_change_at_once(state):
    with process("--state", state) as (base, _):

        def submit(key: str) -> int:
            return httpx2.post(base + PRO, json=SMALL, headers={"x-key": key}).status_code

        assert submit("stranger") == 200
        old = add(state)
        assert [submit(key) for key in ("stranger", old)] == [403, 200]
        new = run("rotate", "shop", "--overlap", "1", "--state", state).stdout.strip()
        assert [submit(key) for key in (old, new)] == [200, 200]
        assert run("change", "shop", "--budget", "9", "--state", state).exit_code == 0
        assert submit(new) == 402
        assert run("revoke", "shop", "--state", state).exit_code == 0
        assert [submit(key) for key in (old, new)] == [403, 403]


def test_what_was_spent_is_shown_by_day_application_and_model(state):
    key = add(state)
    with process("--state", state) as (base, _):
        for path in (PRO, PRO, "/v1/flux-2-max"):
            assert httpx2.post(base + path, json=SMALL, headers={"x-key": key}).status_code == 200
        exported = run("spend", "--csv", "--state", state).stdout
    day = datetime.now(UTC).date().isoformat()
    assert list(csv.reader(io.StringIO(exported))) == [
        ["day", "name", "model", "tasks", "credits"],
        [day, "shop", "flux-2-max", "1", "7"],
        [day, "shop", "flux-2-pro", "2", "6"],
    ]
    assert "in all  13 credits ($0.13)" in run("spend", "--state", state).stdout
    assert [json.loads(line)["tasks"] for line in run("spend", "--json", "--state", state).stdout.splitlines()] == [
        1,
        2,
    ]
    assert run("spend", "--csv", "--until", "2020-01-01", "--state", state).stdout == "day,name,model,tasks,credits\n"


def test_what_the_keys_of_a_file_spent_has_the_names_of_the_file(state, tmp_path):
    ring = tmp_path / "keys.json"
    keys = {name: run("add", name, "--file", ring).stdout.strip() for name in ("shop", "blog")}
    with process("--state", state, "--keys", ring) as (base, _):
        for key in keys.values():
            assert httpx2.post(base + PRO, json=SMALL, headers={"x-key": key}).status_code == 200
        assert run("revoke", "blog", "--file", ring).exit_code == 0
        named, bare = (run("spend", "--csv", *more, "--state", state).stdout for more in (("--keys", ring), ()))
    assert [row["name"] for row in csv.DictReader(io.StringIO(named))] == ["blog", "shop"]
    assert all(row["name"].startswith("sha256:") for row in csv.DictReader(io.StringIO(bare)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "shop", "--slots", "3"), "--slots: needs a state"),
        (
            ("add", "shop", "--credits", "3", "--state", "s"),
            "--credits = '3': goes with --file, not with --state (use --budget)",
        ),
        (("add", "shop", "--models", "flux-9", "--state", "s"), "did you mean 'flux-3'?"),
        (("add", "shop", "--models", ",", "--state", "s"), "must name a model"),
        (("add", "shop", "--budget", "much", "--state", "s"), "--budget"),
        (("add", "a/b", "--state", "s"), "must be 1 to 64 letters"),
        (("change", "shop", "--state", "s"), "Nothing to change"),
        (("change", "shop", "--slots", "1", "--state", "s"), "is not an open application"),
        (("revoke", "shop", "--state", "s"), "is not an open application"),
        (("spend", "--file", "k.json"), "add --state DIR or --database URL"),
        (("list", "--file", "k.json", "--state", "s"), "exclude each other"),
        (("rotate", "shop"), "has keys and no applications"),
    ],
)
def test_a_command_that_cannot_be_done_says_what_can(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr


@pytest.mark.parametrize("option", ["--file", "--state"])
def test_a_place_that_was_typed_wins_over_the_database_of_the_environment(option, tmp_path, monkeypatch):
    monkeypatch.setenv("FLUXWERK_DATABASE", "postgresql://nobody.invalid/fluxwerk")
    place = tmp_path / "place"
    assert run("add", "shop", option, place).exit_code == 0
    assert "shop" in run("list", option, place).stdout


def test_a_database_that_was_typed_excludes_the_other_places():
    said = run("list", "--database", "postgresql://nobody.invalid/fluxwerk", "--file", "k.json").stderr
    assert "--state, --database and --file exclude each other" in said


def test_an_error_names_the_variable_that_an_option_came_from(monkeypatch):
    monkeypatch.setenv("FLUXWERK_DATABASE", "postgresql://nobody.invalid/fluxwerk")
    said = run("add", "shop", "--credits", "3").stderr
    assert "goes with --file, not with --database (from FLUXWERK_DATABASE)" in said
