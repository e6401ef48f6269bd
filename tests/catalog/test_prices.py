"""Prices: the guide's columns, the worked examples, and the laws behind them."""

from __future__ import annotations

from decimal import Decimal
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.catalog.prices import billed_megapixels, estimate, estimate_request, reported_megapixels
from fluxwerk.catalog.rows import Model, Price, get_model, list_models
from fluxwerk.errors import UnknownModelError, UnknownPriceError
from fluxwerk.types import Request

ONE = (1024, 1024)
FLUX_2 = ("klein-4b", "klein-9b", "pro", "max", "flex")
# First megapixel, each further one, and the guide's "1MP T2I" and "1MP I2I" columns in dollars.
GUIDE = {
    "flux-2-klein-4b": ("1.4", "0.1", "0.014", "0.015"),
    "flux-2-klein-9b": ("1.5", "0.2", "0.015", "0.017"),
    "flux-2-pro": ("3", "1.5", "0.03", "0.045"),
    "flux-2-max": ("7", "3", "0.07", "0.10"),
    "flux-2-flex": ("5", "5", "0.05", "0.10"),
}
# Size, count of one-megapixel references, and the cost with each of FLUX_2.
EXAMPLES = [
    (ONE, 0, ("1.4", "1.5", "3", "7", "5")),
    (ONE, 1, ("1.5", "1.7", "4.5", "10", "10")),
    ((1920, 1080), 0, ("1.5", "1.7", "4.5", "10", "10")),
    ((2048, 2048), 0, ("1.7", "2.1", "7.5", "16", "20")),
    (ONE, 8, ("1.8", "2.3", "15", "31", "45")),
]
PER_IMAGE = {
    "flux-kontext-pro": "4",
    "flux-kontext-max": "8",
    "flux-pro-1.1": "4",
    "flux-pro-1.1-ultra": "6",
    "flux-pro-1.1-raw": "6",
    "flux-pro-1.0-fill": "5",
    "flux-pro-1.0-expand": "5",
    "flux-dev": "2.5",
    "flux-2-dev": "0",
}
# Credits for the first output megapixel and for each further one, whatever is sent in.
BY_OUTPUT = {
    "flux-tools-erase": ("3", "0.4"),
    "flux-tools-vto-v1": ("3.75", "0.5"),
    "flux-tools-vto-v2": ("3.75", "0.5"),
}
BY_RESOLUTION = {
    "flux-3-image": {"768sq": "4.1", "1k": "4.8", "1.5k": "7", "2k": "10", "4k": "60.7"},
    "flux-3-image-klein": {"768sq": "0.9", "1k": "0.9", "1.5k": "1.4", "2k": "1.4", "4k": "3.6"},
}
LORAS = {name: name.removesuffix("-finetuned") for name in list_models() if name.endswith("-finetuned")}
SIDES = st.integers(64, 4096)
SIZES = st.tuples(SIDES, SIDES)


@pytest.mark.parametrize(("name", "columns"), GUIDE.items())
def test_the_columns_of_the_guide(name, columns):
    first, more, plain, edited = map(Decimal, columns)

    assert (get_model(name).price.first, get_model(name).price.more) == (first, more)
    assert estimate(name, *ONE) == plain * 100
    assert estimate(name, *ONE, inputs=[ONE]) == edited * 100


@pytest.mark.parametrize(("size", "references", "costs"), EXAMPLES)
def test_the_worked_examples(size, references, costs):
    for name, cost in zip(FLUX_2, costs, strict=True):
        count = min(references, get_model(name).references)
        assert estimate(name, *size, inputs=[ONE] * count) == Decimal(cost), name


@pytest.mark.parametrize(("name", "cost"), PER_IMAGE.items())
def test_a_price_by_image_does_not_depend_on_its_size(name, cost):
    assert estimate(name) == estimate(name, 2048, 2048, inputs=[(4000, 4000)]) == Decimal(cost)


def test_every_model_has_a_price_or_says_that_it_has_none():
    unknown = {name for name, model in list_models().items() if model.price is None}

    assert unknown == {"flux-tools-outpainting", "flux-tools-deblur"}
    assert all("price" in get_model(name).unconfirmed for name in unknown)


@pytest.mark.parametrize(("name", "columns"), BY_OUTPUT.items())
def test_a_tool_is_priced_by_the_megapixels_it_makes(name, columns):
    first, more = map(Decimal, columns)

    assert estimate(name, inputs=[ONE]) == first
    assert estimate(name, inputs=[(2048, 1024), (4096, 4096)]) == first + more


@pytest.mark.parametrize("shape", ["1:1", "21:9", "9:21", "4:3", "auto"])
@pytest.mark.parametrize(
    ("name", "tier", "cost"), [(name, *tier) for name, tiers in BY_RESOLUTION.items() for tier in tiers.items()]
)
def test_flux_3_is_priced_by_its_resolution_in_any_shape(name, tier, cost, shape):
    request = Request(name, {"prompt": "x", "resolution": tier, "aspect_ratio": shape}, (ONE,))

    assert estimate_request(request) == Decimal(cost)


@pytest.mark.parametrize(
    ("size", "cost"),
    [((64, 64), "0.9"), (ONE, "0.9"), ((1600, 1024), "1.4"), ((2048, 2049), "1.4"), ((8192, 8192), "3.6")],
)
def test_an_exact_size_is_priced_as_the_resolution_that_holds_it(size, cost):
    assert estimate("flux-3-image-klein", *size) == Decimal(cost)


def test_flux_3_without_a_resolution_is_priced_at_1k():
    assert (estimate("flux-3-image"), estimate("flux-3-image-klein")) == (Decimal("4.8"), Decimal("0.9"))


@pytest.mark.parametrize(("name", "base"), LORAS.items())
def test_a_lora_is_billed_as_the_model_below_it(name, base):
    known = {"flux-2-klein-9b-kv", "flux-2-klein-9b-kv-bf16", "flux-2-klein-base-9b"}
    base = "flux-2-klein-9b" if base in known else base.replace("base-", "")

    assert get_model(name).price == get_model(base).price


@given(st.sampled_from(sorted(GUIDE)), SIZES, st.lists(SIZES, max_size=8))
def test_a_price_is_the_formula_of_the_guide(name, size, inputs):
    first, more = (Decimal(text) for text in GUIDE[name][:2])
    out = max(1, ceil(Decimal(size[0] * size[1]) / 2**20))
    used = sum(min(4, max(1, ceil(Decimal(w * h) / 2**20))) for w, h in inputs)

    assert estimate(name, *size, inputs=inputs) == (first + (out - 1) * more) + used * more


@given(st.sampled_from(sorted(list_models())), SIZES, SIZES, st.lists(SIZES, max_size=3), SIZES)
def test_more_pixels_or_more_inputs_never_cost_less(name, size, larger, inputs, another):
    if get_model(name).price is None:
        return
    larger = max(size[0], larger[0]), max(size[1], larger[1])

    cost = estimate(name, *size, inputs=inputs)

    assert cost <= estimate(name, *larger, inputs=inputs)
    assert cost <= estimate(name, *size, inputs=[*inputs, another])


@pytest.mark.parametrize(
    ("size", "billed"), [((65, 65), 1), ((1024, 1024), 1), ((1024, 1025), 2), ((1920, 1080), 2), ((2048, 2048), 4)]
)
def test_megapixels_are_billed_whole_and_at_least_one(size, billed):
    assert billed_megapixels(*size) == billed


def test_megapixels_are_reported_as_the_service_was_seen_to_report_them():
    assert reported_megapixels((1920, 1080)) == Decimal("1.98")
    assert reported_megapixels((65, 65)) == Decimal("0.00")
    assert reported_megapixels(ONE, (2048, 2048)) == Decimal("5.00")
    assert reported_megapixels() == 0


def test_an_input_larger_than_four_megapixels_counts_as_four():
    assert estimate("pro", *ONE, inputs=[(4096, 4096)]) == 3 + 4 * Decimal("1.5")


def test_without_a_size_the_first_input_decides():
    assert estimate("pro", inputs=[(2048, 1024)]) == Decimal("4.5") + 2 * Decimal("1.5")
    assert estimate("pro") == 3


def test_a_request_is_priced_by_its_fields_and_the_images_in_it():
    request = Request("pro", {"prompt": "a fox", "width": 1920, "height": 1080}, ((2000, 1000), (64, 64)))

    assert estimate_request(request) == Decimal("4.5") + 3 * Decimal("1.5")


def test_an_image_known_only_by_its_url_counts_as_one_megapixel():
    assert estimate_request(Request("pro", {}, (None,))) == Decimal("4.5")


def test_a_model_by_hand_is_priced_by_its_own_price():
    new = Model("new", "/v1/new", price=Price(image=Decimal(9)))

    assert estimate_request(Request("new", {}), new) == 9
    assert estimate(new) == 9


def test_a_price_that_is_not_public_is_not_guessed():
    with pytest.raises(UnknownPriceError, match=r"of flux-tools-deblur is not public"):
        estimate("deblur")
    with pytest.raises(UnknownPriceError, match=r"estimated\.$"):
        estimate(Model("new", "/v1/new"))


def test_a_model_that_is_not_known_has_no_price():
    with pytest.raises(UnknownModelError):
        estimate("flux-9")
