"""What the pages of the server say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from fluxwerk.cli.serve import command
from fluxwerk.server.errors import CASES
from fluxwerk.server.faults import rules
from fluxwerk.server.faults.rules import DEEDS, FaultRule
from fluxwerk.server.handlers import extensions

DOCS = Path(__file__).parents[2] / "docs"
SERVER = (DOCS / "reference" / "server.md").read_text(encoding="utf-8")
TROUBLE = (DOCS / "how-to" / "trouble.md").read_text(encoding="utf-8")
FIDELITY = (DOCS / "explanation" / "fidelity.md").read_text(encoding="utf-8")


def test_every_option_of_serve_is_documented():
    context = click.Context(command)
    names = {name for option in command.get_params(context) for name in option.opts}
    documented = set(re.findall(r"--[a-z][a-z-]+", SERVER))
    ours = {name for name in names if name.startswith("--") and name != "--help"}
    assert {name for name in ours if name not in ENGINE_OPTIONS} <= documented


# Options of one engine stand on that engine's own page.
ENGINE_OPTIONS = {"--weights", "--device", "--memory", "--loras", "--compile", "--quantize", "--previews"}


def test_every_case_of_the_table_of_errors_is_documented():
    for case in CASES.values():
        rows = [row for row in SERVER.splitlines() if row.endswith(f"| `{case.error}` |")]
        assert any(str(case.live) in row and str(case.guide) in row for row in rows), case


def test_every_extension_is_documented():
    for path, method in extensions.ROUTES:
        assert f"`{method} {path}`" in SERVER


@pytest.mark.parametrize("place", DEEDS)
def test_every_deed_is_documented_at_its_places(place):
    rows = {row.split("|")[1].strip(" `"): row.split("|")[2] for row in TROUBLE.splitlines() if row.startswith("| `")}
    assert {deed for deed, places in rows.items() if place in places} == DEEDS[place]


def test_every_setting_of_a_rule_is_documented():
    for name in FaultRule.model_fields:
        assert f"`{name}" in TROUBLE, name


def test_the_script_of_the_page_can_be_read(tmp_path):
    file = tmp_path / "trouble.toml"
    file.write_text(re.search(r"```toml\n(.+?)```", TROUBLE, re.DOTALL)[1])
    assert len(rules.load(file).rules) == 3


def test_every_line_of_the_fidelity_page_names_a_test():
    """Every line of the fidelity page names a test that is there or a source."""
    for row in re.findall(r"^\| (?!behaviour|---)(.+)\|$", FIDELITY, re.MULTILINE):
        named = re.findall(r"`tests/([\w/]+\.py)(?:::(test_\w+))?`", row)
        assert named or "source:" in row, row
        for name, test in named:
            text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
            assert f"def {test}(" in text if test else True, (name, test)
