"""How our OpenAPI covers the live one, field by field; `python tests/coverage_table.py` writes the page.

A field is the same, stricter (what live takes may be refused here), wider (the other way round) or missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server import app as application
from fluxwerk.server.router import Service
from fluxwerk.server.state.accounts import Accounts

HERE = Path(__file__).parents[1]
LIVE = HERE / "data" / "bfl-openapi-2026-04-29.json"
PAGE = HERE.parent / "docs" / "reference" / "coverage.md"
LEFT_OUT = {"input_image_blob_path": "internal to the service; ignored here"}
LOW, HIGH = ("minimum", "exclusiveMinimum", "minLength"), ("maximum", "exclusiveMaximum", "maxLength")


def page() -> str:
    """Write the whole page."""
    live = json.loads(LIVE.read_text(encoding="utf-8"))
    ours = application.build(Service(Accounts(), lambda: 0.0), OfflineEngine()).openapi()
    rows = [row for path in sorted(live["paths"]) for row in _endpoint(live, ours, path)]
    counts = {word: sum(row[3] == word for row in rows) for word in ("same", "stricter", "wider", "missing")}
    lines = [f"| `{path}` | {place} | `{field}` | {word} | {why} |" for path, place, field, word, why in rows]
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    return "\n".join(
        [
            "# How this server covers the live OpenAPI",
            "",
            "Made by `python tests/coverage_table.py` from the service's OpenAPI of 29 April 2026; a test compares.",
            f"Of {len(rows)} fields {said}.",
            "",
            "| endpoint | where | field | here | what differs |",
            "|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


def _endpoint(live: dict[str, Any], ours: dict[str, Any], path: str) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for method, operation in live["paths"][path].items():
        mine = ours["paths"].get(path, {}).get(method)
        if mine is None:
            rows.append((path, method.upper(), "(all)", "missing", "fine-tuning is not served"))
            continue
        for place, wanted, given in (
            ("request", _request(live, operation), _request(ours, mine)),
            ("answer", _answer(live, operation), _answer(ours, mine)),
        ):
            rows += [(path, place, name, *_compare(name, field, given)) for name, field in wanted.items()]
    return rows


def _request(spec: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = _fields(spec, body)
    return fields | {one["name"]: one["schema"] for one in operation.get("parameters", []) if one["in"] == "query"}


def _answer(spec: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    fields: dict[str, Any] = {}
    for one in schema.get("anyOf", [schema]):
        fields |= _fields(spec, one)
    return fields


def _fields(spec: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    schema = _followed(spec, schema)
    needed = schema.get("required", ())
    return {
        name: {**_followed(spec, field), "required": name in needed}
        for name, field in schema.get("properties", {}).items()
    }


def _followed(spec: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = spec
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _compare(name: str, wanted: dict[str, Any], given: dict[str, Any]) -> tuple[str, str]:
    if name not in given:
        return "missing", LEFT_OUT.get(name, "")
    field = given[name]
    stricter, wider = [], []
    if field.get("required") and not wanted.get("required"):
        stricter.append("required")
    if _nullable(wanted) and not _nullable(field) and "anyOf" in field:
        stricter.append("not null")
    for bounds, sign in ((LOW, 1), (HIGH, -1)):
        for bound in bounds:
            low, high = _bound(wanted, bound), _bound(field, bound)
            if low == high:
                continue
            tighter = low is None or (high is not None and sign * high > sign * low)
            (stricter if tighter else wider).append(f"{bound} {high if high is not None else 'none'} not {low}")
    if stricter:
        return "stricter", "; ".join(stricter + wider)
    return ("wider", "; ".join(wider)) if wider else ("same", "")


def _kinds(field: dict[str, Any]) -> list[dict[str, Any]]:
    return field.get("anyOf", [field])


def _nullable(field: dict[str, Any]) -> bool:
    return {"type": "null"} in _kinds(field)


def _bound(field: dict[str, Any], bound: str) -> float | None:
    return next((kind[bound] for kind in _kinds(field) if bound in kind), None)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
