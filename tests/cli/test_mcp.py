"""`fluxwerk mcp`: what it refuses before it serves."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--http", "--host", "0.0.0.0"), "lets others spend your credits"),
        (("--max-cost", "much"), "must be a number of credits"),
        (("--read", "missing"), "--read"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options, said, tmp_path, monkeypatch):
    monkeypatch.delenv("FLUXWERK_MCP_TOKEN", raising=False)
    done = CliRunner().invoke(group, ["mcp", "--offline", "-o", str(tmp_path), *options])
    assert done.exit_code == 2, done.output
    assert said in done.stderr
