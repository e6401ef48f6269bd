"""Text that the image shows is quoted, short, early, and by a model and options that keep it."""

from __future__ import annotations

import pytest

from fluxwerk.prompt import lint, mend


def found(prompt, model="flux-2-flex", **given):
    return {advice.rule: advice for advice in lint(prompt, model, **given)}


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("A shop sign that says Open Late in neon", '"Open Late"'),
        ("A poster of GRAND OPENING in neon", '"GRAND OPENING"'),
        ("A cup with the words House of Tea in script", '"House of Tea"'),
    ],
)
def test_text_is_put_in_quotes(prompt, text):
    advice = found(prompt)["unquoted-text"]
    assert advice.mend == text
    assert text in mend(prompt, [advice])


@pytest.mark.parametrize("prompt", ["An HDR photo shot RAW on a DSLR", 'A sign "OPEN" in neon', "A {{NAME}} in neon"])
def test_acronyms_quotes_and_variables_are_left_alone(prompt):
    assert "unquoted-text" not in found(prompt)


def test_long_text_is_better_in_blocks():
    assert "long-text" in found('A banner "the big summer sale starts today" in bold')
    assert "long-text" not in found('A banner "summer sale" in bold')


def test_late_text_is_moved_to_the_front():
    filler = "A market square with stalls of fruit and flowers and people who walk between them on a bright morning "
    assert "late-text" in found(filler + 'and at the very end a sign "OPEN" in bold')
    assert "late-text" not in found('A sign "OPEN" in bold over ' + filler)


def test_a_font_is_asked_for():
    assert "font" in found('A sign "OPEN"')
    assert "font" not in found('A sign "OPEN" in condensed letters')


def test_the_model_for_text_is_named_where_another_is_used():
    assert "flux-2-flex" in found('A sign "OPEN"', "flux-2-pro")["text-model"].message
    assert "text-model" not in found('A sign "OPEN"', "flux-2-flex")


@pytest.mark.parametrize(
    ("model", "off"), [("flux-2-flex", {"prompt_upsampling": False}), ("flux-2-pro", {"disable_pup": True})]
)
def test_upsampling_of_exact_words_is_switched_off(model, off):
    assert next(iter(off)) in found('A sign "OPEN"', model)["upsampling"].message
    assert "upsampling" not in found('A sign "OPEN"', model, options=off)


def test_a_model_without_upsampling_needs_no_switch():
    assert "upsampling" not in found('A sign "OPEN"', "flux-2-klein-9b")
