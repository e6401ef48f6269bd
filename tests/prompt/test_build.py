"""A prompt that is built keeps the linter's rules on order, text and colours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import InvalidUsageError
from fluxwerk.prompt import build, lint

WORDS = st.from_regex(r"[a-z]{3,8}( [a-z]{3,8}){0,3}", fullmatch=True)
CODES = st.from_regex(r"#[0-9A-F]{6}", fullmatch=True)


def test_the_parts_stand_in_the_order_of_their_weight():
    prompt = build(
        "a red fox",
        action="stands in deep snow",
        context="at the edge of a forest",
        light="low evening sun from the left",
        camera="85mm lens at f/2",
        style="natural colours",
        text={"OPEN": "bold neon letters above the door"},
        colours={"the door": "#c0392b"},
    )
    assert prompt == (
        'A red fox stands in deep snow at the edge of a forest. The text "OPEN" in bold neon letters above the door. '
        "The door is color brick red #C0392B. Low evening sun from the left. 85mm lens at f/2. Natural colours."
    )
    assert lint(prompt, "flux-2-flex", options={"prompt_upsampling": False}) == []


@given(WORDS, WORDS, st.dictionaries(WORDS, CODES, max_size=5))
def test_colours_of_a_built_prompt_are_named_and_tied(subject, light, colours):
    found = lint(build(subject, light=light, colours=colours), "flux-2-pro")
    assert not {one.rule for one in found} & {"malformed-colour", "unnamed-colour", "loose-colour", "unquoted-text"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"subject": " "}, "subject"),
        ({"subject": "a", "text": {'a "b"': "bold"}}, "text"),
        ({"subject": "a", "text": {"b": ""}}, "text['b']"),
        ({"subject": "a", "colours": {"b": "red"}}, "colours['b']"),
        ({"subject": "a", "colours": {" ": "#FFFFFF"}}, "colours"),
    ],
)
def test_every_fault_names_its_part(given, field):
    with pytest.raises(InvalidUsageError) as raised:
        build(**given)
    assert [fault.field for fault in raised.value.faults] == [field]
