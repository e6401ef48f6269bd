"""A model is recommended with reasons and its estimated price."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import estimate, get_model
from fluxwerk.prompt import choose


@pytest.mark.parametrize(
    ("wish", "given", "model"),
    [
        ("a poster for a festival", {}, "flux-2-flex"),
        ('a cup with "TEA" on it', {}, "flux-2-flex"),
        ("ten thousand cheap thumbnails", {}, "flux-2-klein-4b"),
        ("run it on my own GPU", {}, "flux-2-klein-4b"),
        ("the final campaign picture", {}, "flux-2-max"),
        ("a fox", {}, "flux-2-pro"),
        ("remove the tourists", {"images": [(512, 512)], "mask": True}, "flux-tools-erase"),
        ("repaint the sky", {"images": [(512, 512)], "mask": True}, "flux-pro-1.0-fill"),
        ("extend the picture to the left", {"images": [(512, 512)]}, "flux-tools-outpainting"),
        ("a person in another garment", {"images": [(512, 512)] * 2}, "flux-tools-vto-v2"),
        ("sharpen a shaky photo", {"images": [(512, 512)]}, "flux-tools-deblur"),
    ],
)
def test_the_words_of_a_wish_choose(wish, given, model):
    assert choose(wish, **given)[0].model == model


def test_a_tool_for_images_needs_one():
    assert "flux-tools-erase" not in {one.model for one in choose("remove the tourists", most=20)}


def test_the_price_is_that_of_the_size():
    (best, *_) = choose("a fox", width=2048, height=2048)
    assert best.estimate == estimate("flux-2-pro", 2048, 2048)


def test_a_price_that_is_not_public_is_not_invented():
    best = choose("sharpen it", images=[(512, 512)])[0]
    assert (best.model, best.estimate) == ("flux-tools-deblur", None)


@given(st.text(max_size=80), st.integers(0, 3), st.booleans())
def test_every_wish_gets_models_that_exist_with_reasons(wish, images, mask):
    found = choose(wish, images=[(512, 512)] * images, mask=mask)
    assert found
    for one in found:
        assert get_model(one.model).name == one.model
        assert one.reasons
        assert one.estimate is None or one.estimate > Decimal(0)
