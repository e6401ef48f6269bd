"""How our OpenAPI covers the live one, field by field; `python tests/support/coverage_table.py` writes the page.

A field is the same, stricter (what live takes may be refused here), wider (the other way round), missing here, or extra
(ours has it and the live service does not).  April's OpenAPI is whole; of October's only names and required fields are
known.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server import app as application
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState

HERE = Path(__file__).parents[1]
APRIL = HERE / "data" / "bfl-openapi-2026-04-29.json"
OCTOBER = HERE / "data" / "bfl-fields-2026-10.json"
PAGE = HERE.parent / "docs" / "reference" / "coverage.md"
ABSENT = "–"
WORDS = ("same", "stricter", "wider", "missing", "extra")
NOT_SERVED = "fine-tuned ultra and fill are not served, nor is the deletion of fine-tunes"
LEFT_OUT = {"input_image_blob_path": "internal to the service; ignored here"}
LOW, HIGH = ("minimum", "exclusiveMinimum", "minLength"), ("maximum", "exclusiveMaximum", "maxLength")


class Row(NamedTuple):
    """One field: how ours compares with April's and with October's, and why."""

    path: str
    place: str
    field: str
    april: str
    october: str
    why: str


def page() -> str:
    """Write the whole page."""
    rows = compare()
    return "\n".join(
        [
            "# How this server covers the live OpenAPI",
            "",
            "Made by `python tests/support/coverage_table.py`; a test compares.",
            "",
            f"- The service's OpenAPI of 29 April 2026: {_counted([row.april for row in rows])}.",
            f"- The fields of October 2026: {_counted([row.october for row in rows])}.",
            "  They come from a public client that is generated from the OpenAPI; bounds and defaults are not in it.",
            "",
            "Same: as there. Stricter: what the service takes may be refused here. Wider: the other way round.",
            f"Missing: not here. Extra: only here. {ABSENT}: that source does not have the endpoint or the field.",
            "",
            "| endpoint | where | field | April | October | what differs |",
            "|---|---|---|---|---|---|",
            *(f"| `{r.path}` | {r.place} | `{r.field}` | {r.april} | {r.october} | {r.why} |" for r in rows),
            "",
        ]
    )


def compare() -> list[Row]:
    """Compare every endpoint that either source has with ours."""
    april = json.loads(APRIL.read_text(encoding="utf-8"))
    october = json.loads(OCTOBER.read_text(encoding="utf-8"))
    ours = application.build(ServerState(Accounts(), lambda: 0.0), OfflineEngine()).openapi()
    rows: list[Row] = []
    for path in sorted({*april["paths"], *october["paths"]}):
        for method in april["paths"].get(path, {"post": None}):
            rows += _endpoint(april, october, ours, path, method)
    return rows


def _counted(verdicts: list[str]) -> str:
    known = [word for word in verdicts if word != ABSENT]
    return f"of {len(known)} fields " + ", ".join(f"{known.count(word)} {word}" for word in WORDS)


def _endpoint(
    april: dict[str, Any], october: dict[str, Any], ours: dict[str, Any], path: str, method: str
) -> list[Row]:
    theirs, mine = april["paths"].get(path, {}).get(method), ours["paths"].get(path, {}).get(method)
    if mine is None:
        return [Row(path, method.upper(), "(all)", "missing", ABSENT, NOT_SERVED)]
    rows: list[Row] = []
    if theirs:
        given = _answer(ours, mine)
        for name, field in _answer(april, theirs).items():
            word, why = _compare(name, field, given)
            rows.append(Row(path, "answer", name, word, ABSENT, why))
    wanted, given = _request(april, theirs) if theirs else {}, _request(ours, mine)
    newer = _october(october, path)
    names = [*wanted, *(name for name in (*(newer or ()), *given) if name not in wanted)]
    return [_row(path, name, wanted if theirs else None, newer, given) for name in dict.fromkeys(names)] + rows


def _row(
    path: str, name: str, april: dict[str, Any] | None, october: dict[str, bool] | None, ours: dict[str, Any]
) -> Row:
    before, why = _compare(name, april[name], ours) if april and name in april else (ABSENT, "")
    if april is not None and october is None and name not in april:
        before = "extra"
    now = ABSENT
    if october is not None:
        now, reason = _compare_name(name, october, ours)
        why = why or reason
    if april is not None and before == ABSENT and now == "same":
        why = why or "newer than April"
    return Row(path, "request", name, before, now, why)


def _compare_name(name: str, wanted: dict[str, bool], given: dict[str, Any]) -> tuple[str, str]:
    """Compare by the name and by whether it is required, which is all that October's models tell."""
    if name not in given:
        return "missing", LEFT_OUT.get(name, "")
    if name not in wanted:
        return "extra", ""
    needed = bool(given[name].get("required"))
    if needed == wanted[name]:
        return "same", ""
    return ("stricter", "required") if needed else ("wider", "not required")


def _october(october: dict[str, Any], path: str) -> dict[str, bool] | None:
    if path not in october["paths"]:
        return None
    model = october["models"][october["paths"][path]]
    return {**dict.fromkeys(model["required"], True), **dict.fromkeys(model["optional"], False)}


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
