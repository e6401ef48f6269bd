"""JSON prompts: checked, in one line, and as prose."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import InvalidUsageError
from fluxwerk.prompt import lint
from fluxwerk.prompt.scene import SCHEMA, faults_of, flatten, minify, read

SCENE = {
    "scene": {"setting": "a market square", "time": "at dawn", "mood": "quiet"},
    "subjects": [
        {"description": "a baker with a tray of bread", "action": "opening the shop", "position": "on the left"}
    ],
    "style": {"medium": "35mm photograph"},
    "technical": {"lighting": "soft light from the east", "camera": "50mm at f/4"},
    "colors": ["#C0392B"],
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SCENE, "time"]), inner),
    max_leaves=8,
)


def test_a_scene_is_one_line_without_blanks():
    assert minify(json.dumps(SCENE, indent=4)) == json.dumps(SCENE, separators=(",", ":"), ensure_ascii=False)


def test_a_scene_as_prose_begins_with_its_subjects():
    assert flatten(SCENE) == (
        "A baker with a tray of bread, opening the shop, on the left. A market square, at dawn, quiet. "
        "35mm photograph. Soft light from the east, 50mm at f/4. Colours: #C0392B."
    )


@pytest.mark.parametrize(
    ("scene", "fault"),
    [
        ({}, "prompt.subjects"),
        ({"subjects": []}, "at least 1"),
        ({"subjects": [{"type": "cat"}]}, "prompt.subjects[0].description"),
        ({**SCENE, "colors": ["red"]}, "prompt.colors[0]"),
        ({**SCENE, "style": "oil"}, "of type object"),
        ({**SCENE, "scene": {"time": ""}}, "prompt.scene.time"),
        ("{", "must be JSON"),
    ],
)
def test_a_fault_names_its_field(scene, fault):
    with pytest.raises(InvalidUsageError) as raised:
        read(scene)
    assert fault in str(raised.value)


@given(VALUES)
def test_any_value_is_judged(value):
    for field, allowed in faults_of(value, SCHEMA):
        assert field.startswith("prompt")
        assert allowed


def test_the_linter_quotes_where_json_breaks():
    prompt = '{"subjects": [}'
    advice = next(one for one in lint(prompt, "flux-2-pro") if one.rule == "json")
    assert advice.quote(prompt) == "}"


def test_the_linter_names_faults_of_a_scene():
    messages = [one.message for one in lint('{"colors": ["red"]}', "flux-2-pro") if one.rule == "json"]
    assert messages == ["prompt.subjects is required.", "prompt.colors[0] must be a colour of the form #RRGGBB."]


def test_a_good_scene_only_hears_of_upsampling():
    assert [one.rule for one in lint(minify(SCENE), "flux-2-pro")] == ["upsampling"]


def test_json_that_is_nested_without_end_is_no_scene():
    deep = '{"scene":' * 1100
    assert "json" in {one.rule for one in lint(deep, "flux-2-pro")}
    with pytest.raises(InvalidUsageError, match="must be JSON"):
        read('{"subjects":' * 100_000)
