"""Sizes: on the grid, within bounds, and what the service was seen to deliver."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.catalog.rows import Model, get_model, list_models, ratio
from fluxwerk.catalog.sizes import (
    KONTEXT_SIZES,
    LARGEST_REFERENCE,
    MEGAPIXEL,
    RESOLUTIONS,
    floored,
    output_size,
    placed,
    requested_size,
    shrunk,
)

SIDES = st.integers(64, 8192)
SIZES = st.tuples(SIDES, SIDES)
RATIOS = st.sampled_from(["21:9", "16:9", "3:2", "4:3", "1:1", "3:4", "2:3", "9:16", "9:21"])
PRO = get_model("flux-2-pro")
FILL = get_model("flux-pro-1.0-fill")


@given(SIZES, st.sampled_from([16, 32]))
def test_a_floored_size_is_on_the_grid_and_loses_less_than_a_step(size, grid):
    for side, cut in zip(size, floored(size, grid), strict=True):
        assert cut % grid == 0
        assert 0 <= side - cut < grid


def test_a_floored_side_never_falls_below_64_pixels():
    assert floored((65, 10), 32) == (64, 64)


@given(SIZES)
def test_a_shrunk_size_fits_and_keeps_its_ratio(size):
    width, height = shrunk(size, LARGEST_REFERENCE)

    assert width * height <= LARGEST_REFERENCE
    assert abs(width * size[1] - height * size[0]) <= 2 * max(size)
    assert (width, height) == size or size[0] * size[1] > LARGEST_REFERENCE


def test_a_size_at_the_limit_is_not_shrunk():
    assert shrunk((2048, 2048), LARGEST_REFERENCE) == (2048, 2048)


def test_the_delivered_size_is_cut_to_the_grid_and_the_billed_size_is_not():
    given = {"width": 1920, "height": 1080}

    assert output_size(PRO, given) == (1920, 1072)
    assert requested_size(PRO, given) == (1920, 1080)


@pytest.mark.parametrize("auto", [{}, {"width": 0, "height": 0}, {"width": None}])
def test_without_a_size_flux_2_makes_a_square_megapixel(auto):
    assert output_size(PRO, auto) == (1024, 1024)


def test_without_a_size_flux_2_follows_the_first_image():
    assert output_size(PRO, {}, [(800, 600), (64, 64)]) == (800, 592)


def test_a_large_first_image_is_followed_after_it_was_shrunk():
    assert requested_size(PRO, {}, [(4096, 4096)]) == (2048, 2048)


def test_an_image_of_unknown_size_counts_as_a_square_megapixel():
    assert requested_size(PRO, {}, [None]) == (1024, 1024)
    assert output_size(FILL, {}, [None]) == (1024, 1024)


def test_one_given_side_leaves_the_other_to_the_first_image():
    assert requested_size(PRO, {"width": 512}, [(800, 600)]) == (512, 600)


def test_without_a_size_flux_1_uses_its_own_default_whatever_the_image():
    assert output_size(get_model("flux-pro-1.1"), {}) == (1024, 768)
    assert output_size(get_model("flux-pro-1.1"), {}, [(256, 256)]) == (1024, 768)


def test_a_model_by_hand_without_options_makes_a_square_megapixel():
    assert output_size(Model("new", "/v1/new"), {}) == (1024, 1024)


@given(RATIOS)
def test_kontext_works_at_the_nearest_of_its_own_sizes(wanted):
    width, height = output_size(get_model("kontext"), {"aspect_ratio": wanted})

    assert (width, height) in KONTEXT_SIZES
    assert abs(Decimal(width) / height - ratio(wanted)) < Decimal("0.1")


def test_kontext_follows_its_first_image_and_else_makes_a_square():
    assert output_size(get_model("kontext"), {}, [(1600, 900)]) == (1392, 752)
    assert output_size(get_model("kontext"), {}) == (1024, 1024)


def test_kontext_sizes_are_about_a_megapixel_on_the_grid():
    assert all(abs(w * h - MEGAPIXEL) < MEGAPIXEL * 0.02 and w % 16 == h % 16 == 0 for w, h in KONTEXT_SIZES)


def test_an_impossible_ratio_counts_as_none():
    assert output_size(get_model("kontext"), {"aspect_ratio": "1:99"}) == (1024, 1024)
    assert output_size(get_model("kontext"), {"aspect_ratio": 5}) == (1024, 1024)


@given(RATIOS)
def test_ultra_makes_about_four_megapixels_in_steps_of_32(wanted):
    width, height = output_size(get_model("ultra"), {"aspect_ratio": wanted})

    assert width % 32 == height % 32 == 0
    assert 4 * MEGAPIXEL <= width * height < 4.1 * MEGAPIXEL * 1.02


@pytest.mark.parametrize("name", ["ultra", "raw"])
def test_ultra_without_a_ratio_is_wide_as_was_seen_live(name):
    assert output_size(get_model(name), {}) == (2752, 1536)
    assert output_size(get_model(name), {}, [(64, 640)]) == (2752, 1536)


@given(st.sampled_from(sorted(RESOLUTIONS)), RATIOS)
def test_flux_3_makes_the_area_of_its_resolution_on_the_grid(resolution, wanted):
    width, height = output_size(get_model("flux-3"), {"resolution": resolution, "aspect_ratio": wanted})

    assert width % 16 == height % 16 == 0
    assert abs(width * height / RESOLUTIONS[resolution] ** 2 - 1) < 0.05


def test_flux_3_left_to_itself_follows_the_first_image_in_shape():
    assert output_size(get_model("flux-3"), {}) == (1024, 1024)
    assert output_size(get_model("flux-3"), {"resolution": "2k"}, [(600, 300)]) == (2896, 1456)


def test_flux_3_klein_makes_an_exact_size_or_its_resolution():
    """FLUX.3 klein rounds a full width and height to its grid, and otherwise makes the size of the resolution."""
    klein = get_model("flux-3-klein")

    assert output_size(klein, {"width": 1000, "height": 600, "resolution": "4k"}) == (992, 592)
    assert output_size(klein, {"width": 1000, "resolution": "2k"}) == (2048, 2048)


@given(SIZES)
def test_a_tool_that_repairs_keeps_the_size_of_its_image(size):
    assert output_size(FILL, {"width": 64}, [size]) == size
    assert requested_size(FILL, {}, [size]) == size


def test_expand_adds_its_margins():
    given = {"left": 1, "right": 10, "top": 100, "bottom": None}

    assert output_size(get_model("expand"), given, [(500, 500)]) == (511, 600)
    assert output_size(get_model("expand"), {"top": 6}) == (1024, 1030)


def test_outpainting_makes_the_canvas_that_was_asked_for():
    assert output_size(get_model("outpaint"), {"width": 1500, "height": 900}, [(64, 64)]) == (1488, 896)


@given(st.sampled_from(sorted(list_models())), st.lists(SIZES, max_size=2))
def test_every_model_makes_an_image_of_some_size(name, inputs):
    width, height = output_size(get_model(name), {}, inputs)

    assert width >= 64
    assert height >= 64


def test_a_source_is_placed_by_offset_or_centred():
    """A source lies where it is wanted and in the middle of an axis left open."""
    assert placed((30, -5), (10, 20)) == (30, -5)
    assert placed((None, 7), (10, 20)) == (10, 7)
    assert placed((None, None), (10, 20)) == (10, 20)
