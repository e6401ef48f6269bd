"""The glossary explains each word once, in one plain sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2].joinpath("docs", "explanation", "glossary.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", PAGE, re.MULTILINE)
ELEVEN = {"model", "request", "task", "status", "image", "flow", "call", "drive", "job", "slot", "engine"}
OURS = ELEVEN | {"ledger", "stage", "in doubt", "fence", "drain", "lease", "transition", "transport", "wakeup"}


def test_the_glossary_has_the_words_that_are_ours():
    assert OURS - {word for word, _ in ENTRIES} == set()


def test_the_glossary_has_each_word_once():
    words = [word for word, _ in ENTRIES]
    assert len(words) == len(set(words))


def test_each_section_of_the_glossary_is_in_order():
    for section in PAGE.split("\n## ")[1:]:
        words = [word.lower() for word in re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE)]
        assert words == sorted(words)


@pytest.mark.parametrize(("word", "meaning"), ENTRIES)
def test_each_word_has_one_sentence(word, meaning):
    assert meaning[0].isupper() or meaning.startswith("`"), word
    assert meaning.endswith("."), word
    assert ". " not in meaning, word
