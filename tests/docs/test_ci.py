"""What .ci/run promises: nothing that it can install is left out because it is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.needed import do_without

ROOT = Path(__file__).parents[2]


def test_what_a_run_insists_on_fails_where_it_is_missing_and_all_else_skips(monkeypatch):
    monkeypatch.setenv("FLUXWERK_REQUIRE", "postgresql,browser")
    with pytest.raises(pytest.fail.Exception, match="apt install postgresql"):
        do_without("postgresql", "PostgreSQL is not installed (apt install postgresql)")
    with pytest.raises(pytest.skip.Exception, match="cannot be reached"):
        do_without("registries", "the registry cannot be reached")


def test_ci_insists_on_everything_that_tests_may_do_without():
    asked = {
        name
        for file in (ROOT / "tests").rglob("*.py")
        if file != Path(__file__)
        for name in re.findall(r'(?:do_without|is_required)\("(\w+)"', file.read_text(encoding="utf-8"))
    }
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    insisted = re.findall(r"FLUXWERK_REQUIRE=(\S+)", script)
    assert asked == {name for words in insisted for name in re.findall(r"[a-z]+", words)}
    assert "none could be installed" not in script
