"""The page of fidelity takes the answers of a report."""

from __future__ import annotations

from fluxwerk.conform.suite import GROUPS
from support import fidelity

CHECK = {"name": "a", "group": "polls", "question": "What?", "mark": "observed", "value": [404], "ours": [200]}
REPORT = {
    "server": "https://x",
    "date": "2026-11-26",
    "model": "m",
    "version": "0",
    "checks": [{**CHECK, "differs": True}],
}


def test_the_first_answers_go_to_the_end_of_the_page() -> None:
    page = fidelity.put("# Fidelity\n", REPORT)

    assert page.startswith("# Fidelity\n\n## Asked\n")
    assert "| What? | `[404]` | `[200]` |" in page


def test_later_answers_replace_earlier_ones() -> None:
    page = fidelity.put("# Fidelity\n", REPORT) + "\n## More\n"
    newer = {**REPORT, "checks": [{**CHECK, "value": [410], "differs": False}]}

    assert fidelity.put(page, newer).count("What?") == 1
    assert "| What? | `[410]` | the same |" in fidelity.put(page, newer)
    assert fidelity.put(page, newer).endswith("## More\n")


def test_each_difference_names_the_places_that_decide_it() -> None:
    assert list(fidelity.places(REPORT)) == ["a: server/handlers/poll.py, protocol/wire.py"]
    assert {group.group for group in GROUPS} == set(fidelity.PLACES)
    named = ", ".join(fidelity.PLACES.values()).split(", ")
    assert [place for place in named if not (fidelity.PAGE.parents[2] / "src/fluxwerk" / place).exists()] == []
