"""Variables are filled in one pass, and their values combined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import InvalidUsageError
from fluxwerk.prompt import combine, expand, fill_in, variables_of

NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
VALUES = st.text(max_size=12)


def test_a_prompt_is_made_for_every_combination():
    prompts = expand("a {{colour}} {{ Animal }}", colour=["red", "blue"], animal=["fox", "owl"])
    assert prompts == ["a red fox", "a red owl", "a blue fox", "a blue owl"]


def test_the_rows_of_one_table_stay_together():
    pairs = [{"animal": "fox", "place": "snow"}, {"animal": "owl", "place": "forest"}]
    assert [fill_in("a {{animal}} in {{place}}", row) for row in combine(pairs)] == [
        "a fox in snow",
        "an owl in forest".replace("an", "a"),
    ]


def test_a_variable_without_a_value_is_named():
    with pytest.raises(InvalidUsageError, match=r"\{\{place\}\}.*animal"):
        fill_in("a {{animal}} in {{place}}", {"animal": "fox"})


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
def test_a_value_that_looks_like_a_variable_stays_text(values):
    text = "|".join("{{" + name + "}}" for name in values)
    filled = {name: "{{" + value + "}}" for name, value in values.items()}
    assert fill_in(text, filled) == "|".join(filled.values())


@given(st.lists(NAMES, max_size=6))
def test_the_names_come_once_and_in_their_order(names):
    assert variables_of(" ".join("{{" + name + "}}" for name in names)) == tuple(dict.fromkeys(names))


@pytest.mark.parametrize("text", ['{"a": {"b": 1}}', "{name}", "{{}}", "{{ }}", "{{1+1}}"])
def test_other_braces_are_text(text):
    assert variables_of(text) == ()
    assert fill_in(text, {}) == text
