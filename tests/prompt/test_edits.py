"""Edits say what changes and what stays; a fill describes what fills the mask."""

from __future__ import annotations

import pytest

from fluxwerk.prompt import lint


def rules(prompt, model="flux-2-pro", images=1):
    return {one.rule for one in lint(prompt, model, images=images)} & {"keep", "many-changes", "pronoun", "fill"}


def test_an_edit_says_what_stays():
    assert rules("Change the sky to a sunset") == {"keep"}
    assert rules("Change the sky to a sunset, keeping the house exactly the same") == set()
    assert rules("Change the sky", "flux-kontext-pro", images=0) == {"keep"}


def test_a_picture_composed_of_references_keeps_nothing():
    assert rules("Put the cat of image 1 into the room of image 2", images=2) == set()


def test_one_change_at_a_time():
    assert rules("Add a hat, remove the dog and change the sky, keep the rest") == {"many-changes"}


def test_a_pronoun_names_no_object():
    assert rules("Make it red, keep the rest") == {"pronoun"}


@pytest.mark.parametrize(("prompt", "advice"), [("Remove the dog", {"fill"}), ("a wooden bench", set())])
def test_a_fill_describes_what_is_seen(prompt, advice):
    assert rules(prompt, "flux-pro-1.0-fill") == advice


def test_a_new_picture_is_no_edit():
    assert rules("Remove, add, change, replace it", images=0) == set()
