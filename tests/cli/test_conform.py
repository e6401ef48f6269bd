"""`fluxwerk conform` on the command line: what it asks before it buys, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fluxwerk.cli.group import group
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback

KEY = "a-key-for-the-command-line"


@pytest.fixture
def books() -> Accounts:
    return Accounts([KEY])


@pytest.fixture
def base(books: Accounts) -> Iterator[str]:
    with loopback(accounts=books) as address:
        yield address


def conform(base: str, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(group, ["conform", "--base-url", base, *words], env={"BFL_API_KEY": KEY})
    assert result.exit_code == code, result.output + result.stderr
    return result


def test_nothing_is_bought_without_agreement(base: str, books: Accounts) -> None:
    assert "--yes" in conform(base, "--only", "polls", code=2).stderr
    assert books.tasks.all(0.0) == []


def test_questions_that_cost_nothing_are_asked_at_once(base: str) -> None:
    said = conform(base, "--only", "account", "--only", "paths").output
    assert "0 differ from our server. 0 credits ($0.00) spent." in said


def test_the_answers_are_written_as_json_and_as_a_report(base: str, tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    told = json.loads(conform(base, "--only", "polls", "--yes", "--json", "--report", str(file)).stdout)
    assert (told["server"], told["spent"], told["differences"]) == ("http://127.0.0.1", 1.4, [])
    assert "| What does the answer to a submit name? |" in file.read_text()
    assert KEY not in file.read_text()


def test_an_answer_that_deviates_is_the_exit_code(books: Accounts) -> None:
    """A server that serves nothing below /v1 deviates."""
    with loopback(accounts=books) as address:
        assert "deviates" in conform(f"{address}/elsewhere", "--only", "account", code=1).output
