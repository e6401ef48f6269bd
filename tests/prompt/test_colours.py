"""Colours have the form #RRGGBB, a name, and an object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.prompt import lint, mend
from fluxwerk.prompt.colours import NAMES, name_of

COLOUR_RULES = {"malformed-colour", "unnamed-colour", "loose-colour", "many-colours", "gradient"}


def advice(prompt):
    return [one for one in lint(prompt, "flux-2-pro") if one.rule in COLOUR_RULES]


def rules(prompt):
    return [one.rule for one in advice(prompt)]


@pytest.mark.parametrize(("name", "code"), NAMES.items())
def test_a_named_colour_has_its_name(name, code):
    assert name_of(code) == name


@given(st.integers(0, 0xFFFFFF))
def test_every_colour_has_a_name(number):
    assert name_of(f"#{number:06x}") in NAMES


def test_a_colour_near_another_has_its_name():
    assert name_of("#BF3A2A") == "brick red"


@pytest.mark.parametrize(
    ("prompt", "mended"),
    [
        ("a wall is red #f00", "a wall is red #FF0000"),
        ("a wall is red #FF0000CC", "a wall is red #FF0000"),
        ("a wall in red color ff0000", "a wall in red color #FF0000"),
        ("a wall is red rgb(255, 0, 0)", "a wall is red #FF0000"),
        ("a wall is red 0xff0000", "a wall is red #FF0000"),
    ],
)
def test_a_malformed_code_is_mended(prompt, mended):
    assert "malformed-colour" in rules(prompt)
    assert mend(prompt, advice(prompt)) == mended


def test_a_code_that_nobody_can_read_is_shown_without_a_mend():
    (one,) = advice("a red wall is #12345")
    assert (one.rule, one.mend) == ("malformed-colour", None)
    assert advice("a red wall is rgb(300, 0, 0)")[0].mend is None


@pytest.mark.parametrize("prompt", ["the #1 shop", "a card tagged #sunset"])
def test_what_is_no_colour_is_left_alone(prompt):
    assert advice(prompt) == []


def test_a_name_is_put_before_the_code():
    assert mend("the mug is color #C0392B", advice("the mug is color #C0392B")) == "the mug is color brick red #C0392B"
    assert advice("the mug is brick red #C0392B") == []


def test_a_code_without_an_object_is_loose():
    assert "loose-colour" in rules("A mug on a table, red #FF0000, at dusk")


def test_more_than_five_codes_are_many():
    parts = [f"wall {number} is red #FF000{number}" for number in range(6)]
    assert "many-colours" in rules(", ".join(parts))
    assert "many-colours" not in rules(", ".join(parts[:5]))


def test_a_gradient_has_two_ends():
    assert "gradient" in rules("a sky gradient in blue #0000FF")
    assert "gradient" not in rules("a sky gradient from blue #0000FF to red #FF0000")
