"""The answers as JSON, as a table, and as a Markdown report to attach to an issue; none holds a key or a signed URL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from fluxwerk.conform.suite import CheckResult, Mark
from fluxwerk.protocol import trust
from fluxwerk.types import Json

LONGEST_ANSWER = 160
MARKS = {Mark.FITS: "✓", Mark.DEVIATES: "✗", Mark.OBSERVED: "·", Mark.SKIPPED: "–", Mark.FAILED: "!"}


def to_json(results: Sequence[CheckResult], facts: Mapping[str, Json]) -> dict[str, Json]:
    """Write everything for programs; `facts` say which server was asked, when, and what it cost."""
    return {
        **facts,
        "counts": dict(Counter(str(result.mark) for result in results)),
        "differences": [result.check.name for result in results if result.differs],
        "checks": [
            {
                "name": result.check.name,
                "group": result.check.group,
                "question": result.check.question,
                "mark": result.mark,
                "value": result.value,
                "ours": result.ours,
                "differs": result.differs,
            }
            for result in results
        ],
    }


def line_of(result: CheckResult) -> str:
    """Write one answer as a line of a table."""
    note = f"   ours: {shown(result.ours)}" if result.differs else ""
    return f"{MARKS[result.mark]} {result.check.group:9} {result.check.name:28} {shown(result.value)}{note}"


def summary(results: Sequence[CheckResult]) -> str:
    """Count the answers in a sentence."""
    counts = Counter(result.mark for result in results)
    told = ", ".join(f"{counts[mark]} {mark}" for mark in Mark if counts[mark])
    differing = sum(result.differs for result in results)
    return f"{len(results)} questions: {told}; {differing} differ from our server."


def to_markdown(report: Mapping[str, Json]) -> str:
    """Write a report, as `to_json` made it, for people."""
    return "\n".join(_lines(report))


def shown(value: Json) -> str:
    """Write a value on one line, cut to a length that a table bears."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(trust.redact(text).split())
    return text if len(text) <= LONGEST_ANSWER else f"{text[: LONGEST_ANSWER - 1]}…"


def _lines(report: Mapping[str, Json]) -> Iterator[str]:
    checks = cast("list[dict[str, Json]]", report["checks"])
    yield "# Conformance report"
    yield ""
    for name in ("server", "model", "date", "version", "dialect", "spent"):
        yield f"- {name}: {report.get(name)}"
    counts = cast("dict[str, int]", report["counts"])
    yield f"- answers: {', '.join(f'{count} {mark}' for mark, count in counts.items())}"
    yield f"- differences from our server: {len(cast('list[str]', report['differences']))}"
    for group in dict.fromkeys(check["group"] for check in checks):
        yield ""
        yield f"## {str(group).capitalize()}"
        yield ""
        yield "| question | answer | mark | ours, where it differs |"
        yield "|---|---|---|---|"
        for check in checks:
            if check["group"] == group:
                ours = _cell(check["ours"]) if check["differs"] else ""
                yield f"| {check['question']} | {_cell(check['value'])} | {check['mark']} | {ours} |"


def _cell(value: Json) -> str:
    text = shown(value).replace("|", "\\|").replace("`", "'")
    return f"`{text}`"
