"""`fluxwerk doctor`: every line says what was found, and what to do where something is wrong."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from click.testing import CliRunner

from fluxwerk.batch import plan
from fluxwerk.cli import checks
from fluxwerk.cli.group import group
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback

NOW = 1_764_000_000.0
STAMP = "Mon, 24 Nov 2025 16:00:00 GMT"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def doctor(*words):
    done = CliRunner().invoke(group, ["doctor", "--json", *words])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.exit_code, {row["check"]: row for row in rows}


def test_a_machine_in_order_has_nothing_bad(fluxwerk_server):
    code, found = doctor("--base-url", fluxwerk_server)
    assert {"version", "key", "proxy", "DNS", "CA", "credits", "clock", "disk", "GPU"} <= found.keys()
    bad = [name for name, row in found.items() if row["level"] == "bad" and name != "disk"]
    assert bad == []
    assert code == (found["disk"]["level"] == "bad")


def test_every_line_that_is_not_good_says_what_to_do(fluxwerk_server):
    _, found = doctor("--base-url", fluxwerk_server)
    assert [name for name, row in found.items() if row["level"] != "good" and not row["todo"]] == []


def test_a_missing_key_is_told_with_the_way_to_one(monkeypatch):
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    code, found = doctor("--base-url", "http://127.0.0.1:9")
    assert code == 1
    assert "fluxwerk init" in found["key"]["todo"]


@pytest.mark.parametrize(("key", "words"), [("a-key", "balance is 0 credits"), ("another-key", "key")])
def test_a_refused_key_and_an_empty_account_stand_in_the_way(monkeypatch, key, words):
    monkeypatch.setenv("BFL_API_KEY", key)
    with loopback(accounts=Accounts(["a-key"], credit=Decimal(0))) as base:
        code, found = doctor("--base-url", base)
    assert (code, found["credits"]["level"]) == (1, "bad")
    assert words in found["credits"]["text"]
    assert "dashboard.bfl.ai" in found["credits"]["todo"]


def test_a_service_that_is_not_there_is_told():
    code, found = doctor("--base-url", "http://127.0.0.1:9", "--timeout", "2")
    assert code == 1
    assert found["credits" if "credits" in found else "key"]["level"] == "bad"


@pytest.mark.parametrize(
    ("stamp", "now", "level", "words"),
    [
        (STAMP, NOW, "good", "within"),
        (STAMP, NOW + 400, "bad", "400 seconds ahead"),
        (STAMP, NOW - 400, "bad", "400 seconds behind"),
        ("", NOW, "note", "no time"),
        ("yesterday", NOW, "note", "no time"),
    ],
)
def test_the_clock_is_compared_with_the_service(stamp, now, level, words):
    finding = checks.clock_of(stamp, now)
    assert finding.level == level
    assert words in finding.text


def test_a_ledger_with_doubts_is_named(fluxwerk_server, own_folder):
    with Ledger.open(own_folder / "foxes.ledger") as ledger:
        plan(ledger, [{"prompt": "a fox"}])
        worker = ledger.leases.register(1000)
        ledger.doubted(ledger.submitting(worker, 1, "https://api.bfl.ai").jobs[0], "lost")
    _, found = doctor("--base-url", fluxwerk_server)
    assert "1 in doubt" in found["ledger"]["text"]
    assert "settle" in found["ledger"]["todo"]


def test_people_see_a_mark_and_an_arrow():
    done = CliRunner().invoke(group, ["doctor", "--base-url", "http://127.0.0.1:9", "--timeout", "2"])
    assert "✓ version" in done.stdout
    assert "→ " in done.stdout
