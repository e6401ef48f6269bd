"""The page of typical mistakes shows what the command line answers today."""

from __future__ import annotations

import pytest

from support import mistakes

ALL = [mistake for section in mistakes.SECTIONS.values() for mistake in section]


def test_the_page_is_what_the_commands_answer():
    assert mistakes.PAGE.read_text(encoding="utf-8") == mistakes.page(), "python tests/support/mistakes.py writes it"


def test_the_page_shows_fifty_different_mistakes():
    assert len({mistake.command for mistake in ALL}) == len(ALL) >= 50
    assert all(mistake.advice.endswith(".") for mistake in ALL)


@pytest.mark.parametrize("mistake", ALL, ids=lambda mistake: mistake.title)
def test_a_mistake_ends_with_one_error_and_its_exit_code(mistake):
    code, answer = mistakes.run(mistake.command)
    if "--dry-run" in mistake.command:
        assert (code, answer.startswith("Note: ")) == (0, True)
        return
    assert code == (3 if mistake.title == "No key" else 2)
    assert answer.startswith("Error: ")
    assert answer.count("Error: ") == 1
