"""The linter: advice for each model in the order of the text, never a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import UnknownModelError, list_models
from fluxwerk.prompt import lint, lint_fields, mend

GOOD = (
    "A red fox stands in deep snow at the edge of a birch forest, one paw raised, looking at the camera. Low golden "
    "evening light comes from the left and outlines its fur. Natural colours, photographed with an 85mm lens at f/2."
)
WORDS = st.sampled_from(
    "no not without people #f00 #C0392B image 3 (fox:1.2) 8k --ar {{name}} text says SALE , . ( [ ' { keep".split()  # noqa: SIM905
)


def rules(prompt, model="flux-2-pro", **given):
    return [advice.rule for advice in lint(prompt, model, **given)]


def test_a_good_prompt_gets_no_advice():
    assert rules(GOOD) == rules(GOOD, "flux-2-max") == []


def test_an_unknown_model_is_the_only_refusal():
    with pytest.raises(UnknownModelError, match="flux-2-pro"):
        lint("a fox", "flux-2-prp")


@given(
    st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=200),
    st.sampled_from(list(list_models())),
    st.integers(0, 9),
)
def test_every_place_is_inside_the_prompt(prompt, model, images):
    for advice in lint(prompt, model, images=images):
        assert 0 <= advice.start <= advice.end <= len(prompt)
        assert advice.message.endswith(('."', ".", "?"))


@given(st.lists(WORDS, max_size=25).map(" ".join), st.integers(0, 3))
def test_a_mended_prompt_needs_no_more_mends_of_that_kind_soon(prompt, images):
    for _ in range(6):
        found = lint(prompt, "flux-2-pro", images=images)
        if not any(one.mend is not None for one in found):
            return
        prompt = mend(prompt, found)
    raise AssertionError(prompt)


def test_advice_comes_in_the_order_of_the_text_and_then_on_the_whole():
    found = lint("no people, a wall #f00, 8k", "flux-2-klein-4b")
    places = [one.start for one in found if one.end > one.start]
    assert places == sorted(places)
    assert found[-1].start == found[-1].end


def test_a_model_without_a_prompt_gets_no_advice():
    assert rules("no people", "flux-tools-erase") == []


@pytest.mark.parametrize("text", ["no (", "#C0392B ", "and, ", "  ", '"x" OPEN '])
def test_what_no_model_reads_is_not_judged_word_by_word(text):
    assert rules(text * 10_000) == ["length"]


def test_the_fields_of_a_request_tell_images_and_options():
    fields = {
        "prompt": GOOD + ' The sign "OPEN" in bold font.',
        "input_image": "https://x.test/1.png",
        "disable_pup": True,
    }
    found = {advice.rule for advice in lint_fields("flux-2-pro", fields)}
    assert "upsampling" not in found
    assert "upsampling" in {advice.rule for advice in lint_fields("flux-2-pro", {**fields, "disable_pup": False})}


def test_a_request_without_a_prompt_gets_no_advice():
    assert lint_fields("flux-2-pro", {}) == lint_fields("flux-2-pro", {"prompt": " "}) == []


def test_images_in_a_list_are_counted():
    fields = {"prompt": "Put the cat of image 3 into the room.", "images": ["https://x.test/1.png"] * 2}
    assert "reference-range" in {advice.rule for advice in lint_fields("flux-3-image", fields)}
