"""JSON prompts: their schema, and the same scene in one line or as prose."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import cast

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.prompt.advice import Advice
from fluxwerk.prompt.draft import Draft
from fluxwerk.types import Json

TEXT: dict[str, Json] = {"type": "string", "minLength": 1}
KINDS: dict[str, type] = {"object": dict, "array": list, "string": str}
SCHEMA: dict[str, Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A scene as a prompt for FLUX",
    "type": "object",
    "properties": {
        "scene": {"type": "object", "properties": {"setting": TEXT, "time": TEXT, "mood": TEXT}},
        "subjects": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"id": TEXT, "type": TEXT, "description": TEXT, "position": TEXT, "action": TEXT},
                "required": ["description"],
            },
        },
        "style": {"type": "object", "properties": {"medium": TEXT, "technique": TEXT, "reference": TEXT}},
        "technical": {"type": "object", "properties": {"camera": TEXT, "lighting": TEXT, "composition": TEXT}},
        "colors": {"type": "array", "items": {"type": "string", "pattern": "^#[0-9A-Fa-f]{6}$"}},
    },
    "required": ["subjects"],
}


def minify(scene: str | Mapping[str, Json]) -> str:
    """Write a scene in one line without blanks, as it is sent."""
    return json.dumps(read(scene), ensure_ascii=False, separators=(",", ":"))


def flatten(scene: str | Mapping[str, Json]) -> str:
    """Write a scene as prose: the subjects first, then the place, the style, the camera and the colours."""
    value = read(scene)
    sentences = [
        *(_joined(subject, "description", "action", "position") for subject in value["subjects"]),
        _joined(value.get("scene", {}), "setting", "time", "mood"),
        _joined(value.get("style", {}), "medium", "technique", "reference"),
        _joined(value.get("technical", {}), "lighting", "camera", "composition"),
        "Colours: " + ", ".join(value["colors"]) if value.get("colors") else "",
    ]
    return " ".join(f"{one[0].upper()}{one[1:].rstrip('.')}." for one in sentences if one)


def read(scene: str | Mapping[str, Json]) -> dict[str, Json]:
    """Read a scene; raises `InvalidUsageError` with every fault."""
    try:
        value: Json = json.loads(scene) if isinstance(scene, str) else dict(scene)
    except (ValueError, RecursionError) as error:
        raise InvalidUsageError("", faults=[Fault("prompt", None, f"must be JSON: {error}")]) from None
    faults = [Fault(field, None, allowed) for field, allowed in faults_of(value, SCHEMA)]
    if faults:
        raise InvalidUsageError("The prompt is not a scene:", faults=faults)
    return cast("dict[str, Json]", value)


def faults_of(value: Json, schema: Mapping[str, Json], field: str = "prompt") -> Iterator[tuple[str, str]]:
    """Compare a value with the part of JSON Schema that `SCHEMA` uses; yields the field and what is allowed."""
    if not isinstance(value, KINDS[schema["type"]]):
        yield field, f"must be of type {schema['type']}"
    elif isinstance(value, str):
        if not value:
            yield field, "must not be empty"
        elif not re.search(schema.get("pattern", ""), value):
            yield field, "must be a colour of the form #RRGGBB"
    elif isinstance(value, list):
        yield from _faults_of_list(cast("list[Json]", value), schema, field)
    else:
        yield from _faults_of_object(cast("Mapping[str, Json]", value), schema, field)


def _faults_of_list(items: list[Json], schema: Mapping[str, Json], field: str) -> Iterator[tuple[str, str]]:
    if len(items) < schema.get("minItems", 0):
        yield field, f"must have at least {schema['minItems']} entry"
    for at, item in enumerate(items):
        yield from faults_of(item, schema["items"], f"{field}[{at}]")


def _faults_of_object(entries: Mapping[str, Json], schema: Mapping[str, Json], field: str) -> Iterator[tuple[str, str]]:
    for name in schema.get("required", ()):
        if name not in entries:
            yield f"{field}.{name}", "is required"
    for name, part in schema["properties"].items():
        if name in entries:
            yield from faults_of(entries[name], part, f"{field}.{name}")


def scenes(draft: Draft) -> Iterator[Advice]:
    """Find JSON that cannot be read, and scenes that do not have the form that FLUX knows."""
    if not draft.is_json:
        return
    try:
        value: Json = json.loads(draft.prompt)
    except json.JSONDecodeError as error:
        at = min(error.pos, len(draft.prompt) - 1)
        yield Advice("json", f"The JSON cannot be read: {error.msg}.", at, at + 1)
        return
    except RecursionError:
        yield Advice("json", "The JSON cannot be read: it is nested too deeply.")
        return
    for field, allowed in faults_of(value, SCHEMA):
        yield Advice("json", f"{field} {allowed}.")


def _joined(part: Mapping[str, Json], *names: str) -> str:
    return ", ".join(part[name] for name in names if name in part)
