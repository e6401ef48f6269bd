"""What weights cannot honour is refused before it is accepted, or listed; never passed over in silence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluxwerk import catalog
from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.local import ability
from fluxwerk.engines.local.ability import Ability
from fluxwerk.engines.local.kind import KINDS
from fluxwerk.engines.local.row import Row, Weights
from support.photos import photo, png


def able(model: str, kind: str, **columns: object) -> Ability:
    return Ability(Weights({model: Row(model, "/weights/some", KINDS[kind], licence="MIT", **columns)}))


def order(model: str, references: int = 0, **options: object) -> Order:
    return Order(model, "x", 1, 64, 64, references=(png(photo(64, 64)),) * references, options=options)


def faults(model: str, kind: str, references: int = 0, **options: object) -> dict[str, str]:
    found = able(model, kind).faults(order(model, references, **options))
    return {fault.field: fault.allowed for fault in found}


@pytest.mark.parametrize(
    ("model", "kind", "references", "options"),
    [
        ("flux-2-klein-4b", "klein", 4, {"safety_tolerance": 0}),
        ("flux-2-dev", "dev", 6, {"steps": 50, "guidance": 9.0}),
        ("flux-2-flex", "klein-base", 4, {"steps": 9, "guidance": 2.0, "prompt_upsampling": True}),
        ("flux-kontext-pro", "kontext", 1, {"prompt_upsampling": False}),
        ("flux-dev", "flux1-dev", 0, {"steps": 9, "guidance": 2.0}),
        ("flux-dev", "flux1-schnell", 0, {"steps": 28, "guidance": 3.0}),
        ("flux-pro-1.0-fill", "fill", 0, {"steps": 20, "guidance": 99.0}),
        ("flux-tools-erase", "klein", 0, {"dilate_pixels": 3}),
    ],
)
def test_what_is_honoured_passes(model: str, kind: str, references: int, options: dict) -> None:
    assert faults(model, kind, references, **options) == {}


@pytest.mark.parametrize(
    ("model", "kind", "references", "options", "field", "why"),
    [
        ("flux-kontext-pro", "kontext", 2, {}, "input_image_2", "take 1 images"),
        ("flux-2-pro", "klein", 5, {}, "input_image_5", "take 4 images"),
        ("flux-dev", "flux1-dev", 1, {}, "image_prompt", "Redux"),
        ("flux-dev", "flux1-schnell", 0, {"steps": 20}, "steps", "run 4 steps"),
        ("flux-dev", "flux1-schnell", 0, {"guidance": 2.0}, "guidance", "distilled"),
        ("flux-2-flex", "klein", 0, {"guidance": 2.0}, "guidance", "distilled"),
        ("flux-kontext-pro", "kontext", 0, {"prompt_upsampling": True}, "prompt_upsampling", "rewrites prompts"),
        ("flux-pro-1.1-ultra", "flux1-dev", 0, {"raw": True}, "raw", "no raw mode"),
        ("flux-tools-outpainting", "fill", 0, {"auto_crop": True}, "auto_crop", "not cropped"),
        ("flux-tools-outpainting", "fill", 0, {"mode": "fast"}, "mode", "only one mode"),
    ],
)
def test_what_is_not_honoured_is_refused_by_its_field(
    model: str, kind: str, references: int, options: dict, field: str, why: str
) -> None:
    found = faults(model, kind, references, **options)
    assert list(found) == [field]
    assert why in found[field]


def test_a_model_without_weights_is_refused_and_those_with_are_named() -> None:
    (fault,) = able("flux-2-dev", "dev").faults(order("flux-2-pro"))
    assert (fault.field, fault.value) == ("model", "flux-2-pro")
    assert "flux-2-dev" in fault.allowed


def test_a_reference_much_longer_than_wide_is_refused() -> None:
    long = replace(order("flux-2-klein-4b"), references=(png(photo(64, 64)), png(photo(640, 64))))
    (fault,) = able("flux-2-klein-4b", "klein").faults(long)
    assert (fault.field, fault.value) == ("input_image_2", "640×64")


def test_steps_and_guidance_have_an_order_of_precedence() -> None:
    """Steps and guidance come from the operator the request or the kind in this order."""
    row = Row("flux-2-dev", "/w", KINDS["dev"])
    assert (ability.steps(row, {}), ability.guidance(row, {})) == (28, 4.0)
    assert (ability.steps(row, {"steps": 7}), ability.guidance(row, {"guidance": 2.5})) == (7, 2.5)
    fixed = replace(row, steps=9, guidance=1.5)
    assert (ability.steps(fixed, {"steps": 7}), ability.guidance(fixed, {"guidance": 2.5})) == (9, 1.5)
    klein = Row("flux-2-flex", "/w", KINDS["klein"])
    assert (ability.steps(klein, {"steps": 50}), ability.guidance(klein, {"guidance": 5.0})) == (4, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_listed_exactly_once(kind: str) -> None:
    for model in catalog.list_models().values():
        facts = able(model.name, kind).facts(model)
        listed = [*facts["honoured"], *facts["refused"], *facts["without_effect"]]
        assert sorted(listed) == sorted(model.options)


def test_the_list_tells_weights_licence_and_limits_but_no_path() -> None:
    model = catalog.get_model("flux-kontext-pro")
    facts = able("flux-kontext-pro", "kontext").facts(model)
    assert (facts["weights"], facts["licence"], facts["references"]) == ("some", "MIT", 1)
    assert facts["refused"]["input_image_2"] == "these weights take 1 images"
    assert "/weights" not in str(facts)
    assert able("flux-kontext-pro", "kontext").facts(catalog.get_model("flux-2-pro")) is None


def test_a_canvas_is_no_reference() -> None:
    canvas = Canvas(png(photo(64, 64)))
    assert not able("flux-pro-1.0-fill", "fill").faults(Order("flux-pro-1.0-fill", "", 1, 64, 64, canvas=canvas))
