"""Prose with subject and light, of a fitting length, without the spells of other generators."""

from __future__ import annotations

import pytest

from fluxwerk.prompt import lint, mend


def advice(prompt, model="flux-2-pro", **given):
    return lint(prompt, model, **given)


def rules(prompt, model="flux-2-pro", **given):
    return {one.rule for one in advice(prompt, model, **given)}


@pytest.mark.parametrize(
    ("prompt", "mended"),
    [
        ("A fox at dusk, 8k, masterpiece", "A fox at dusk"),
        ("Masterpiece, best quality, a fox at dusk", "a fox at dusk"),
        ("A (red:1.4) fox at ((dusk))", "A red fox at dusk"),
        ("A fox at dusk --ar 16:9 --v 6", "A fox at dusk"),
    ],
)
def test_spells_weights_and_flags_are_left_out(prompt, mended):
    for _ in range(2):
        prompt = mend(prompt, advice(prompt))
    assert prompt == mended


def test_a_list_of_keywords_is_no_prose():
    assert "keywords" in rules("fox, snow, forest, dusk, red fur, cold")
    assert "keywords" not in rules("A fox stands in the snow of a forest, with red fur, at dusk")


def test_the_subject_comes_first():
    assert "late-subject" in rules("Cinematic, 35mm, golden hour, a fox in the snow")
    assert "late-subject" not in rules("A fox in the snow, cinematic, 35mm, golden hour")


@pytest.mark.parametrize(
    ("words", "model", "told"),
    [
        (10, "flux-2-klein-9b", True),
        (50, "flux-2-klein-9b", False),
        (75, "flux-2-klein-9b", True),
        (75, "flux-2-max", False),
        (90, "flux-2-max", True),
        (10, "flux-2-max", False),  # upsampling invents the rest
        (10, "flux-dev", True),
    ],
)
def test_the_length_fits_the_model(words, model, told):
    assert ("length" in rules("light " * words, model)) is told


def test_a_short_prompt_without_upsampling_is_told():
    assert "length" in rules("a fox at dusk", options={"disable_pup": True})


def test_what_the_model_does_not_read_is_said_in_tokens():
    assert "tokens" in next(one.message for one in advice("light " * 600) if one.rule == "length")


def test_light_is_asked_for_in_a_new_picture_only():
    assert "light" in rules("A fox in a field")
    assert "light" not in rules("A fox in a field at dusk")
    assert "light" not in rules("Make the fox red", images=1)


def test_max_is_told_a_camera_for_a_photograph():
    assert "camera" in rules("A photo of a fox at dusk", "flux-2-max")
    assert "camera" not in rules("A photo of a fox at dusk, 85mm", "flux-2-max")
    assert "camera" not in rules("A photo of a fox at dusk", "flux-2-pro")


def test_an_unfilled_variable_is_quoted():
    (one,) = [one for one in advice("A {{animal}} at dusk") if one.rule == "variable"]
    assert one.quote("A {{animal}} at dusk") == "{{animal}}"
