"""The rows: complete, sourced, equal to the service's own OpenAPI where it speaks, and strict about what is given."""

from __future__ import annotations

import json
import tomllib
from datetime import date
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.catalog import rows
from fluxwerk.catalog.rows import KINDS, Model, Option, check, get_model, list_models, ratio, refuse, takes_webhooks
from fluxwerk.errors import InvalidUsageError, UnknownModelError

PRO, ULTRA = get_model("pro"), get_model("ultra")
NAMES = sorted(list_models())
VENDOR = json.loads((Path(__file__).parents[1] / "data" / "bfl-openapi-2026-04-29.json").read_text(encoding="utf-8"))

OCTOBER = json.loads((Path(__file__).parents[1] / "data" / "bfl-fields-2026-10.json").read_text(encoding="utf-8"))

# Path, references, slots, and price as (first, more), (image,), by resolution, or none.
ROWS = {
    "flux-2-klein-4b": ("/v1/flux-2-klein-4b", 4, 24, ("1.4", "0.1")),
    "flux-2-klein-9b": ("/v1/flux-2-klein-9b", 4, 24, ("1.5", "0.2")),
    "flux-2-klein-9b-preview": ("/v1/flux-2-klein-9b-preview", 4, 24, ("1.5", "0.2")),
    "flux-2-pro": ("/v1/flux-2-pro", 8, 24, ("3", "1.5")),
    "flux-2-pro-preview": ("/v1/flux-2-pro-preview", 8, 24, ("3", "1.5")),
    "flux-2-max": ("/v1/flux-2-max", 8, 24, ("7", "3")),
    "flux-2-flex": ("/v1/flux-2-flex", 8, 24, ("5", "5")),
    "flux-2-klein-4b-finetuned": ("/v1/flux-2-klein-4b-finetuned", 4, 24, ("1.4", "0.1")),
    "flux-2-klein-9b-finetuned": ("/v1/flux-2-klein-9b-finetuned", 4, 24, ("1.5", "0.2")),
    "flux-2-klein-9b-kv-finetuned": ("/v1/flux-2-klein-9b-kv-finetuned", 4, 24, ("1.5", "0.2")),
    "flux-2-klein-9b-kv-bf16-finetuned": ("/v1/flux-2-klein-9b-kv-bf16-finetuned", 4, 24, ("1.5", "0.2")),
    "flux-2-klein-base-4b-finetuned": ("/v1/flux-2-klein-base-4b-finetuned", 4, 24, ("1.4", "0.1")),
    "flux-2-klein-base-9b-finetuned": ("/v1/flux-2-klein-base-9b-finetuned", 4, 24, ("1.5", "0.2")),
    "flux-2-dev": ("/v1/flux-2-dev", 6, 24, ("0",)),
    "flux-kontext-pro": ("/v1/flux-kontext-pro", 4, 24, ("4",)),
    "flux-kontext-max": ("/v1/flux-kontext-max", 4, 6, ("8",)),
    "flux-pro-1.1": ("/v1/flux-pro-1.1", 0, 24, ("4",)),
    "flux-dev": ("/v1/flux-dev", 0, 24, ("2.5",)),
    "flux-pro-1.1-ultra": ("/v1/flux-pro-1.1-ultra", 0, 24, ("6",)),
    "flux-pro-1.1-raw": ("/v1/flux-pro-1.1-ultra", 0, 24, ("6",)),
    "flux-pro-1.0-fill": ("/v1/flux-pro-1.0-fill", 0, 24, ("5",)),
    "flux-pro-1.0-expand": ("/v1/flux-pro-1.0-expand", 0, 24, ("5",)),
    "flux-tools-outpainting": ("/v1/flux-tools/outpainting-v1", 0, 24, ()),
    "flux-tools-erase": ("/v1/flux-tools/erase-v1", 0, 24, ("3", "0.4")),
    "flux-tools-deblur": ("/v1/flux-tools/deblur-v1", 0, 24, ()),
    "flux-tools-vto-v1": ("/v1/flux-tools/vto-v1", 0, 24, ("3.75", "0.5")),
    "flux-tools-vto-v2": ("/v1/flux-tools/vto-v2", 0, 24, ("3.75", "0.5")),
    "flux-3-image": ("/v1/flux-3-image", 10, 5, ("768sq: 4.1", "1k: 4.8", "1.5k: 7", "2k: 10", "4k: 60.7")),
    "flux-3-image-klein": ("/v1/flux-3-image-klein", 10, 5, ("1k: 0.9", "2k: 1.4", "4k: 3.6")),
}
# Where the catalogue and the OpenAPI of 29 April 2026 differ, and why; "*" stands for every model.
DIFFERENCES = {
    ("*", "user", "extra"): "added between April and September 2026",
    ("flux-2-pro", "disable_pup", "extra"): "in the OpenAPI of September 2026",
    ("flux-2-pro-preview", "disable_pup", "extra"): "in the OpenAPI of September 2026",
    ("flux-2-max", "disable_pup", "extra"): "in the OpenAPI of September 2026",
    ("flux-2-flex", "input_image_blob_path", "missing"): "internal to the service",
    ("flux-dev", "prompt", "nullable"): "a prompt that is null is none given, as for its family",
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OPTION_NAMES = sorted({name for model in list_models().values() for name in model.options})


def published(path):
    """The properties and required fields that the service publishes for a path."""
    body = VENDOR["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = VENDOR["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    return schema["properties"], set(schema.get("required", ()))


def flattened(column):
    """One published property without its alternatives: its constraints, and whether it may be null."""
    kinds = column.get("anyOf", [column])
    [kind] = [kind for kind in kinds if kind.get("type") != "null"]
    if "$ref" in kind:
        kind = VENDOR["components"]["schemas"][kind["$ref"].rpartition("/")[2]]
    return kind, len(kinds) > 1


def differences(model):
    """Every (model, option, what) in which a row says something else than the service."""
    properties, required = published(model.path)
    found = {(name, "extra") for name in set(model.options) - set(properties)}
    found |= {(name, "missing") for name in set(properties) - set(model.options)}
    for name in set(model.options) & set(properties):
        option, (kind, nullable) = model.options[name], flattened(properties[name])
        json_type = {"integer": "integer", "number": "number", "boolean": "boolean"}.get(option.type, "string")
        default = properties[name].get("default")
        pairs = {
            "type": (json_type, kind["type"]),
            "nullable": (option.nullable, nullable),
            "required": (option.required, name in required),
            "minimum": (option.minimum, kind.get("minimum")),
            "maximum": (option.maximum, kind.get("maximum")),
            "multiple": (option.multiple, kind.get("multipleOf")),
            "minimum_length": (option.minimum_length, kind.get("minLength")),
            "maximum_length": (option.maximum_length, kind.get("maxLength")),
            "choices": (sorted(option.choices), sorted(kind.get("enum", ()))),
            "url": (option.type == "url", kind.get("format") == "uri"),
            # A default of 0 is how the service spells "chosen by itself".
            "default": (0 if option.zero_is_auto and option.default is None else option.default, default),
        }
        found |= {(name, what) for what, (ours, theirs) in pairs.items() if ours != theirs}
    return {(model.name, *difference) for difference in found}


PUBLISHED = [name for name in NAMES if get_model(name).path in VENDOR["paths"] and not get_model(name).sends]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_option_is_what_the_service_publishes(name):
    unknown = {
        difference
        for difference in differences(get_model(name))
        if difference not in DIFFERENCES and ("*", *difference[1:]) not in DIFFERENCES
    }

    assert unknown == set()


def test_every_known_difference_is_still_one():
    found = set().union(*(differences(get_model(name)) for name in PUBLISHED))

    assert {known for known in DIFFERENCES if known[0] != "*"} <= found
    assert all((name, "user", "extra") in found for name in PUBLISHED)


def test_every_image_model_that_the_service_publishes_has_a_row():
    paths = {path for path, methods in VENDOR["paths"].items() if "post" in methods and "finetune" not in path}

    assert paths == {get_model(name).path for name in PUBLISHED}


@pytest.mark.parametrize("path", OCTOBER["paths"])
def test_every_row_has_the_fields_of_october_and_no_others(path):
    published = OCTOBER["models"][OCTOBER["paths"][path]]
    [model] = [model for model in list_models().values() if model.path == path and not model.sends]
    internal = {name for name in ("input_image_blob_path",) if name in published["optional"]}

    assert set(model.options) == {*published["required"], *published["optional"]} - internal
    assert {name for name, option in model.options.items() if option.required} == set(published["required"])


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("flux-tools-outpainting", {"seed", "webhook_url", "webhook_secret"}),
        ("flux-3-image", {"user", "webhook_url", "webhook_secret"}),
    ],
)
def test_a_strict_model_refuses_what_the_live_service_refuses(name, absent):
    model = get_model(name)
    given = dict.fromkeys(absent, "https://a")
    named = {fault.field for fault in check(model, given) if "no such option" in fault.allowed}

    assert model.strict
    assert named == absent


def test_a_model_that_takes_no_webhook_is_known_by_its_row():
    assert not any(takes_webhooks(name) for name in ("flux-tools-outpainting", "flux-3-image"))
    assert all(takes_webhooks(name) for name in ("flux-2-pro", "newer-than-the-catalogue"))
    assert takes_webhooks(Model("new", "/v1/new"))


def test_klein_of_flux_3_says_that_it_is_unconfirmed():
    assert {"path", "price", "safety_tolerance"} <= set(get_model("flux-3-image-klein").unconfirmed)


def test_a_safety_tolerance_of_7_is_passed_on_to_flux_3():
    assert all(
        check(get_model(name), {"prompt": "x", "safety_tolerance": 7}) == [] for name in ("flux-3", "flux-3-klein")
    )


def test_there_are_these_models_and_no_others():
    def price(model):
        known = model.price
        if known is None:
            return ()
        if known.resolution:
            return tuple(f"{name}: {cost}" for name, cost in known.resolution.items())
        return tuple(map(str, (known.image,) if known.image is not None else (known.first, known.more)))

    assert {name: (m.path, m.references, m.slots, price(m)) for name, m in list_models().items()} == ROWS


@pytest.mark.parametrize("name", NAMES)
def test_every_row_names_its_source_and_the_day_it_was_checked(name):
    model = get_model(name)

    assert model.source.strip()
    assert model.source != "given by hand"
    assert date(2026, 1, 1) < model.checked
    assert model.title
    assert model.best_for


@pytest.mark.parametrize("name", NAMES)
def test_what_is_unconfirmed_is_a_column_or_an_option(name):
    model = get_model(name)

    assert all(hasattr(model, word) or word in model.options for word in model.unconfirmed)


@pytest.mark.parametrize("name", NAMES)
def test_every_default_may_be_given(name):
    options = get_model(name).options
    defaults = {option.name: option.default for option in options.values() if option.default is not None}

    assert [fault for fault in check(get_model(name), defaults) if fault.allowed != "is required"] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_comes_first_where_there_is_one(name):
    assert "prompt" not in get_model(name).options or next(iter(get_model(name).options)) == "prompt"


def test_prices_are_exact():
    assert get_model("klein-4b").price.first == Decimal("1.4")
    assert get_model("klein-4b").price.more * 3 == Decimal("0.3")


def test_no_two_models_share_a_name_an_alias_or_a_path():
    words = [word for model in list_models().values() for word in (model.name, *model.aliases)]
    paths = [path for model in list_models().values() for path in model.paths()]

    assert len(words) == len(set(words))
    assert len(paths) == len(set(paths))


def test_the_paths_of_the_guide_and_of_the_service_are_both_there():
    paths = {path for model in list_models().values() for path in model.paths()}

    assert {"/v1/flux-kontext", "/v1/flux-kontext-pro", "/v1/flux-fill", "/v1/flux-pro-1.0-fill"} <= paths
    assert {"/v1/flux-pro-1.1-raw", "/v1/flux-pro-1.1-ultra", "/v1/flux-pro"} <= paths


def test_only_the_weights_that_are_run_at_home_are_not_hosted():
    assert [name for name in NAMES if not get_model(name).hosted] == ["flux-2-dev"]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("flux-2-pro", "flux-2-pro"),
        (" FLUX-2-Pro ", "flux-2-pro"),
        ("/v1/flux-kontext", "flux-kontext-pro"),
        ("/v1/flux-tools/erase-v1", "flux-tools-erase"),
        ("raw", "flux-pro-1.1-raw"),
        ("dev", "flux-2-dev"),
    ],
)
def test_a_model_is_found_by_name_alias_or_path(word, name):
    assert get_model(word).name == name


@pytest.mark.parametrize("name", [name for name in NAMES if not get_model(name).sends])
def test_a_model_is_found_by_each_of_its_paths(name):
    assert all(get_model(path).name == name for path in get_model(name).paths())


@pytest.mark.parametrize("word", ["flux-2-prp", "FLUX2-PRO", "/v1/flux-2-por"])
def test_a_mistyped_model_is_answered_with_the_nearest(word):
    with pytest.raises(UnknownModelError, match="did you mean 'flux-2-pro'"):
        get_model(word)


def test_a_model_that_resembles_none_is_answered_with_where_to_look():
    with pytest.raises(UnknownModelError, match=r"`fluxwerk models` lists them.*fluxwerk\.Model\("):
        get_model("dall-e")


def test_a_model_by_hand_is_passed_through_and_takes_everything():
    new = Model("new", "/v1/new")

    assert get_model(new) is new
    assert check(new, {"anything": object()}) == []
    assert new.paths() == ("/v1/new",)


def test_the_fields_for_references_are_numbered_from_the_second():
    assert get_model("klein-4b").reference_names() == ("input_image", "input_image_2", "input_image_3", "input_image_4")
    assert get_model("flux-3").reference_names() == ("images",)
    assert ULTRA.reference_names() == ()


def test_what_fits_has_no_faults():
    given = {"prompt": "a fox", "width": 1920, "height": 1080, "seed": -1, "safety_tolerance": 0, "user": "u"}

    assert check(PRO, given) == []
    assert check(PRO, {"prompt": "a fox", "width": 0, "height": None}) == []


@pytest.mark.parametrize(
    ("model", "field", "value", "said"),
    [
        (PRO, "prompt", None, "is required"),
        (PRO, "prompt", 5, "a text"),
        (PRO, "width", 63, "a whole number of at least 64"),
        (PRO, "width", 100.5, "a whole number"),
        (PRO, "width", "1024", "a whole number"),
        (PRO, "width", True, "a whole number"),
        (PRO, "width", False, "a whole number"),
        (PRO, "width", 0.0, "a whole number"),
        (PRO, "safety_tolerance", 6, "from 0 to 5"),
        (ULTRA, "safety_tolerance", 7, "from 0 to 6"),
        (get_model("flux-3"), "safety_tolerance", 8, "from 0 to 7"),
        (PRO, "output_format", "gif", "one of jpeg, png, webp"),
        (PRO, "output_format", ["png"], "one of jpeg, png, webp"),
        (PRO, "disable_pup", 1, "true or false"),
        (PRO, "webhook_url", "ftp://a", "an http or https URL"),
        (PRO, "webhook_url", "https://" + "a" * 2083, "of 1 to 2083 characters"),
        (PRO, "user", "", "of 1 to 256 characters"),
        (PRO, "input_image", b"png", "an image"),
        (PRO, "steps", 20, "flux-2-pro has no such option"),
        (get_model("flux-pro-1.1"), "width", 1000, "a multiple of 32"),
        (get_model("flux-pro-1.1"), "width", 1472, "from 256 to 1440"),
        (get_model("flex"), "guidance", float("nan"), "from 1.5 to 10"),
        (get_model("flex"), "guidance", float("inf"), "from 1.5 to 10"),
        (get_model("flex"), "guidance", "5", "a number"),
        (ULTRA, "aspect_ratio", "22:9", "between 21:9 and 9:21"),
        (ULTRA, "aspect_ratio", "wide", "between 21:9 and 9:21"),
        (ULTRA, "aspect_ratio", 1.5, 'a ratio such as "16:9"'),
        (get_model("flux-3"), "aspect_ratio", "6:5", "one of auto, 21:9"),
        (get_model("flux-3"), "images", 5, "an image or a list of them"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(model, field, value, said):
    given = {name: option_value(option) for name, option in model.options.items() if option.required} | {field: value}

    [fault] = check(model, given)

    assert fault.field == field
    assert said in str(fault)


def option_value(option):
    return {"string": "a fox", "image": "https://a"}[option.type]


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("flex", "guidance", 7),
        ("flex", "guidance", Decimal("2.5")),
        ("ultra", "aspect_ratio", "21:9"),
        ("ultra", "aspect_ratio", "9:21"),
        ("flux-3", "aspect_ratio", "auto"),
        ("flux-3", "images", ["a", "b"]),
        ("flux-pro-1.1", "width", 1440),
        ("pro", "webhook_url", "http://127.0.0.1/hook"),
    ],
)
def test_what_is_at_the_edge_still_fits(name, field, value):
    assert check(get_model(name), {"prompt": "a fox", field: value}) == []


def test_a_mistyped_option_is_answered_with_the_nearest():
    [fault] = check(PRO, {"prompt": "a fox", "safety_tolerence": 2})

    assert fault.hint == "did you mean 'safety_tolerance'?"


def test_a_secret_is_not_shown():
    [fault] = check(PRO, {"prompt": "a fox", "webhook_secret": 12345})

    assert "12345" not in str(fault)


def test_an_image_of_more_than_four_megapixels_is_refused_as_a_whole():
    assert check(PRO, {"prompt": "a fox", "width": 2048, "height": 2048}) == []
    [fault] = check(PRO, {"prompt": "a fox", "width": 2049, "height": 2048})

    assert str(fault) == "width × height = '2049×2048': must be at most 4194304 pixels, such as 2048×2048"


def test_faults_are_raised_all_at_once_and_none_raise_nothing():
    with pytest.raises(
        InvalidUsageError, match=r"(?s)does not fit flux-2-pro; nothing was sent:.*width.*prompt|prompt.*width"
    ):
        refuse(PRO, check(PRO, {"width": 1}))

    assert refuse(PRO, []) is None


@given(
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(OPTION_NAMES) | st.text(max_size=10), JSON, max_size=5),
)
def test_checking_arbitrary_json_names_faults_and_never_raises(name, given):
    for fault in check(get_model(name), given):
        assert str(fault).startswith(fault.field)


@given(st.sampled_from(NAMES), st.sampled_from(OPTION_NAMES), JSON)
def test_a_value_of_the_wrong_type_never_passes(name, field, value):
    option = get_model(name).options.get(field)
    named = {fault.field for fault in check(get_model(name), {field: value})}
    if value is not None and (option is None or not isinstance(value, KINDS[option.type][0])):
        assert field in named


@given(st.integers(1, 99_999), st.integers(1, 99_999))
def test_a_ratio_is_width_over_height_within_21_to_9(width, height):
    expected = Decimal(width) / Decimal(height) if 3 * width <= 7 * height and 3 * height <= 7 * width else None

    assert ratio(f"{width}:{height}") == expected


@given(st.text(max_size=12))
def test_a_text_is_a_ratio_or_not_and_never_raises(text):
    value = ratio(text)

    assert value is None or 0 < value < 3


@pytest.mark.parametrize(
    "text", ["", ":", "16", "16:", ":9", "16:9:1", "1.6:0.9", "-16:9", "0:9", "16:0", "²:1", "100000:100000"]
)
def test_what_is_no_ratio_is_none(text):
    assert ratio(text) is None


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (Option("a", "integer"), "a whole number"),
        (Option("a", "integer", maximum=5), "a whole number"),
        (Option("a", "integer", minimum=1), "a whole number of at least 1"),
        (Option("a", "integer", minimum=1, maximum=9, multiple=2), "a whole number from 1 to 9, a multiple of 2"),
        (Option("a", "string", minimum_length=1, maximum_length=5), "a text of 1 to 5 characters"),
        (Option("a", "string", choices=("x", "y")), "one of x, y"),
    ],
)
def test_an_option_says_in_words_what_may_be_given(option, words):
    assert option.allowed() == words


def test_a_column_that_nobody_knows_is_refused_when_the_rows_are_read():
    data = tomllib.loads(files("fluxwerk").joinpath("catalog/models.toml").read_text(encoding="utf-8"))
    row = {**data["model"]["flux-2-pro"], "prize": 3}

    with pytest.raises(ValueError, match=r"flux-2-pro has unknown columns \['prize'\]"):
        rows._row("flux-2-pro", row, data)
