"""Write the answers of a conformance report into docs/explanation/fidelity.md, and list where ours differ.

    fluxwerk conform --json > report.json
    python tests/support/fidelity.py report.json

The page gets one line for each answer, and whether our server gives the same.  For each difference the places are
printed that decide it: the page and the server are changed together, by a person who has read the answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fluxwerk.conform.report import shown

PAGE = Path(__file__).parents[2] / "docs/explanation/fidelity.md"
BEGIN, END = "<!-- conform: begin -->", "<!-- conform: end -->"
# What decides the answers of each group.
PLACES = {
    "account": "server/errors.py, server/state/state.py",
    "paths": "server/router.py, server/errors.py",
    "refusals": "server/schema.py, server/inputs.py, server/errors.py",
    "polls": "server/handlers/poll.py, protocol/wire.py",
    "images": "catalog/sizes.py, server/handlers/submit.py",
    "money": "catalog/models.toml, catalog/prices.py, server/state/tasks.py",
    "links": "server/state/links.py, server/handlers/results.py",
    "webhooks": "server/state/outgoing.py, server/state/webhooks.py",
    "limits": "catalog/models.toml, server/handlers/submit.py",
}


def section(report: Mapping[str, Any]) -> str:
    """Write the part of the page that holds the answers."""
    return "\n".join(_lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield BEGIN
    yield f"Asked of {report['server']} on {report['date']} with {report['model']} (fluxwerk {report['version']}):"
    yield ""
    yield "| question | answer | ours |"
    yield "|---|---|---|"
    for check in report["checks"]:
        if check["mark"] not in ("skipped", "not answered"):
            ours = f"`{_cell(check['ours'])}`" if check["differs"] else "the same"
            yield f"| {check['question']} | `{_cell(check['value'])}` | {ours} |"
    yield END


def put(page: str, report: Mapping[str, Any]) -> str:
    """Replace the answers on the page by those of a report; the first ones go to its end."""
    before, begin, rest = page.partition(BEGIN)
    if not begin:
        return f"{page.rstrip()}\n\n## Asked\n\n{section(report)}\n"
    return before + section(report) + rest.partition(END)[2]


def places(report: Mapping[str, Any]) -> Iterator[str]:
    """Name what decides each answer of ours that differs."""
    for check in report["checks"]:
        if check["differs"]:
            yield f"{check['name']}: {PLACES[check['group']]}"


def _cell(value: object) -> str:
    return shown(value).replace("|", "\\|").replace("`", "'")


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), given), encoding="utf-8")
    sys.stdout.write("\n".join(places(given)) + "\n")
