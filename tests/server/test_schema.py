"""What a submit may hold, read from the catalogue and refused in FastAPI's own shape."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluxwerk import catalog, get_model
from fluxwerk.server import schema
from fluxwerk.server.schema import InvalidFieldsError, read
from support.live import LIVE

SERVED = {path: model for model in catalog.list_models().values() for path in model.paths()}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def refusal(model: str, data: bytes) -> list[dict[str, object]]:
    with pytest.raises(InvalidFieldsError) as caught:
        read(get_model(model), data)
    return caught.value.detail


def test_absent_fields_get_the_models_defaults():
    fields = read(get_model("flux-pro-1.1"), b"{}")
    assert (fields["width"], fields["height"], fields["output_format"]) == (1024, 768, "jpeg")
    assert read(get_model("flux-kontext-pro"), body(prompt="x"))["output_format"] == "png"


def test_a_missing_prompt_is_refused_with_place_message_and_type():
    assert refusal("flux-2-pro", b"{}") == [{"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"}]


def test_every_fault_is_named_at_once_with_its_bound():
    detail = refusal("flux-2-pro", body(width=63, safety_tolerance=6))
    assert {entry["loc"][1] for entry in detail} == {"prompt", "width", "safety_tolerance"}
    assert next(entry for entry in detail if entry["loc"][1] == "width")["ctx"] == {"ge": "64"}


def test_the_value_itself_is_never_repeated():
    assert "CANARY" not in json.dumps(
        refusal("flux-2-pro", body(prompt="x", width="CANARY", webhook_secret=["CANARY"]))
    )


@pytest.mark.parametrize("size", [0, None])
def test_zero_null_and_absent_sizes_are_the_same(size):
    assert read(get_model("flux-2-pro"), body(prompt="x", width=size)) == read(
        get_model("flux-2-pro"), body(prompt="x")
    )


def test_flux_1_sizes_are_multiples_of_32():
    assert refusal("flux-pro-1.1", body(width=1000))[0]["type"] == "multiple_of"
    assert read(get_model("flux-pro-1.1"), body(width=992))["width"] == 992


@pytest.mark.parametrize("name", ["fill", "expand"])
def test_fill_takes_its_image_as_image_alone_as_the_live_service(name):
    assert read(get_model(name), body(image="x"))["image"] == "x"
    missing = {"type": "missing", "loc": ["body", "image"], "msg": "Field required"}
    assert refusal(name, body(input_image="x")) == [missing]


@pytest.mark.parametrize("name", ["flux-3-image", "flux-tools-outpainting"])
def test_strict_models_refuse_unknown_fields(name):
    assert {"extra_forbidden"} <= {entry["type"] for entry in refusal(name, body(strange=1))}


def test_other_models_ignore_unknown_fields():
    assert "aspect_ratio" not in read(get_model("flux-2-pro"), body(prompt="x", aspect_ratio="16:9"))


@pytest.mark.parametrize("ratio", ["22:9", "1:0", "wide", "", "16/9", "\uff11\uff16:9"])
def test_a_ratio_beyond_21_to_9_is_refused(ratio):
    assert refusal("flux-kontext-pro", body(prompt="x", aspect_ratio=ratio))[0]["type"] == "value_error"


def test_a_good_ratio_is_kept():
    assert read(get_model("flux-kontext-pro"), body(prompt="x", aspect_ratio="21:9"))["aspect_ratio"] == "21:9"


def test_a_webhook_needs_an_http_url():
    assert refusal("flux-2-pro", body(prompt="x", webhook_url="ftp://x"))[0]["type"] == "string_pattern_mismatch"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe{",
        b"\x00",
        b'{"prompt": "\x00"}',
        b'{"prompt": NaN}',
        b"-Infinity",
        b"[" * 100_000,
        b"9" * 9999,
    ],
    ids=["nothing", "open", "not UTF-8", "NUL", "raw NUL", "NaN", "infinity", "deep", "endless number"],
)
def test_what_is_no_json_is_refused_as_json(data):
    assert [entry["type"] for entry in refusal("flux-2-pro", data)] == ["json_invalid"]


@pytest.mark.parametrize("data", [b"null", b"[]", b'"x"', b"1"])
def test_what_is_no_object_is_refused(data):
    assert [entry["loc"] for entry in refusal("flux-2-pro", data)] == [["body"]]


@pytest.mark.parametrize("text", ["\ud800", "a\0b"], ids=["half a character", "NUL"])
@pytest.mark.parametrize("name", ["prompt", "user", "webhook_secret", "input_image"])
def test_a_text_that_no_database_keeps_is_refused(name, text):
    detail = refusal("flux-2-pro", body(**{"prompt": "x", name: text}))
    assert [(entry["type"], entry["loc"]) for entry in detail] == [("string_unicode", ["body", name])]


@pytest.mark.parametrize("name", list(catalog.list_models()))
@given(value=JSON, data=st.data())
@example(value=1e999, data=None)
@example(value="\ud800", data=None)
@example(value=10**4000, data=None)
def test_any_json_in_any_field_is_read_or_refused(name, value, data):
    """Any json in any field is read or refused and what is read can be written."""
    model = get_model(name)
    field = data.draw(st.sampled_from(list(model.options))) if data else "seed" if "seed" in model.options else "prompt"
    try:
        fields = read(model, body(**{"prompt": "x", field: value}))
    except InvalidFieldsError as unfit:
        fields = unfit.detail
    assert json.loads(json.dumps(fields, allow_nan=False, ensure_ascii=False).encode()) == fields


@pytest.mark.parametrize("path", LIVE["paths"])
def test_every_live_field_has_the_same_bounds_and_default(path):
    """Every field of the live service has the same bounds and default here."""
    published = schema.request_model(SERVED[path].name).model_json_schema()
    for name, live in LIVE["schemas"][LIVE["paths"][path]].items():
        ours = published["properties"][name]
        kinds = ours.get("anyOf", [ours])
        assert live["required"] == (name in published.get("required", []))
        assert not live["nullable"] or {"type": "null"} in kinds, name
        assert (ours.get("default") or None) == (live.get("default") or None), name
        for bound in ("minimum", "maximum", "multipleOf", "minLength", "maxLength"):
            assert kinds[0].get(bound) == live.get(bound), (name, bound)
