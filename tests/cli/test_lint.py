"""`fluxwerk lint`: the place, the words, the mend."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group


def lint(*words, stdin=None):
    return CliRunner().invoke(group, ["lint", *map(str, words)], input=stdin)


WORDS = '"with no people" names what should not be there; FLUX has no negative prompt. Say "deserted and still".'


def test_advice_quotes_the_place_and_the_mend():
    done = lint("A street with no people")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:4] == [
        f"prompt:9: negation: {WORDS}",
        "  | A street with no people",
        "  |         ^^^^^^^^^^^^^^^",
        "  = mend: write 'deserted and still'",
    ]


def test_fix_prints_the_mended_prompts_and_nothing_else_on_stdout():
    done = lint("A street with no people", "A wall at dusk", "--fix")
    assert done.stdout == "A street, deserted and still\nA wall at dusk\n"
    assert "light" in done.stderr


def test_a_file_is_read_by_line(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("A wall at dusk\n\nA beach without tourists at dusk\n")
    assert f"{file}:2:8: negation" in lint("-f", file).stdout
    assert "-:2:8: negation" in lint("-f", "-", stdin=file.read_text()).stdout


def test_json_holds_the_places():
    facts = json.loads(lint("A wall at dusk, 8k", "--json").stdout)
    assert facts["mended"] == "A wall at dusk"
    assert facts["advice"][0] | {"message": ""} == {"rule": "spell", "message": "", "start": 14, "end": 18, "mend": ""}


def test_the_place_in_a_long_prompt_is_shown_with_its_surroundings():
    lines = lint("word " * 30 + "no people " + "light " * 30).stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if "negation" in line)
    assert lines[at + 1].startswith("  | …")
    marked = "".join(letter for letter, mark in zip(lines[at + 1], lines[at + 2], strict=False) if mark == "^")
    assert marked.strip() == "no people"


def test_a_good_prompt_gets_no_word():
    done = lint("A wall at dusk")
    assert (done.stdout, done.stderr) == ("", "Nothing to say.\n")


@pytest.mark.parametrize("words", [(), ("a fox", "-f", "-")])
def test_either_prompts_or_a_file_are_given(words):
    assert lint(*words).exit_code == 2


def test_a_file_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xff\xfe\xff")
    done = lint("-f", file)
    assert done.exit_code == 2
    assert "UTF-8" in done.stderr
