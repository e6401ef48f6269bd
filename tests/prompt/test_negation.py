"""Negations are found outside quotes, and swapped for what is there instead."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from fluxwerk.prompt import lint, mend
from fluxwerk.prompt.negation import swaps


def negations(prompt, **given):
    return [advice for advice in lint(prompt, "flux-2-pro", **given) if advice.rule == "negation"]


@pytest.mark.parametrize(
    ("prompt", "mended"),
    [
        ("A street with no people", "A street, deserted and still"),
        ("A street without any cars and no people, at dusk", "A street, an empty road, deserted and still, at dusk"),
        ("No text. A wall", "Clean, unmarked surfaces. A wall"),
        ("A portrait, not blurry", "A portrait, sharp focus throughout"),
        ("A portrait --no glasses", "A portrait, bare eyes in full view"),
        ("Make the car red. Don't change the road", "Make the car red. Keep the road exactly the same"),
        ("Make it night without changing the face", "Make it night, keeping the face exactly the same"),
        ("A beach, don’t show tourists.", "A beach, deserted and still."),
    ],
)
def test_a_negation_is_swapped_for_what_is_there(prompt, mended):
    assert mend(prompt, negations(prompt)) == mended


@pytest.mark.parametrize(
    "prompt",
    [
        'A sign with "NO PARKING" on it',
        "A road no longer used",
        "Platform no. 5",
        "Not only red but blue",
        "A no-entry sign",
    ],
)
def test_what_only_looks_like_a_negation_is_left_alone(prompt):
    assert negations(prompt) == []


def test_an_unknown_thing_is_quoted_and_left_to_the_writer():
    (advice,) = negations("A kitchen without toasters on the table")
    assert advice.quote("A kitchen without toasters on the table") == "without toasters"
    assert advice.mend is None


def test_no_swap_is_a_negation_itself():
    assert [say for say in swaps().values() if negations(f"A place, {say}")] == []


def test_there_are_ten_tables_of_swaps():
    tables = tomllib.loads(files("fluxwerk").joinpath("prompt/swaps.toml").read_text(encoding="utf-8"))
    assert len(tables) == 10
    words = [word for rows in tables.values() for row in rows for word in row["words"]]
    assert len(words) == len(set(words))
