"""Rows with variables become a row for every combination of values, in the same plan and with its own fingerprint."""

from __future__ import annotations

import pytest

from fluxwerk import InvalidUsageError
from fluxwerk.batch.expansion import MOST_COMBINATIONS, Expansion
from fluxwerk.batch.manifest import ManifestLine
from fluxwerk.batch.planner import plan
from fluxwerk.ledger.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "jobs.ledger") as opened:
        yield opened


def jobs(ledger):
    return [(row["line"], row["item"], ledger.job_fields(row)["prompt"], row["output"]) for row in ledger.rows()]


def rows(expansion, **columns):
    return [line.columns for line in expansion.expand([ManifestLine(1, columns)])]


def test_a_manifest_is_planned_for_every_row_of_a_table(ledger, tmp_path):
    (tmp_path / "prompts.csv").write_text("prompt,output\na {{colour}} fox,{{colour}}-fox\nan owl,owl\n")
    (tmp_path / "colours.csv").write_text("Colour;code\nred;#FF0000\nblue;#0000FF\n")
    found = plan(ledger, tmp_path / "prompts.csv", variables=[tmp_path / "colours.csv"])
    assert found.jobs == 3
    assert jobs(ledger) == [
        (2, 1, "a red fox", "red-fox"),
        (2, 2, "a blue fox", "blue-fox"),
        (3, 1, "an owl", "owl"),
    ]


def test_the_images_of_one_line_are_numbered_through(ledger):
    plan(ledger, [{"prompt": "a {{colour}} fox", "count": 2, "seed": 7}], variables=["colour=red,blue"])
    assert [(line, item) for line, item, _, _ in jobs(ledger)] == [(1, 1), (1, 2), (1, 3), (1, 4)]


def test_other_values_are_another_plan(ledger):
    row = [{"prompt": "a {{colour}} fox"}]
    assert plan(ledger, row, variables=["colour=red"]).jobs == 1
    assert plan(ledger, row, variables=["colour=red"]).already
    assert plan(ledger, row, variables=["colour=blue"]).jobs == 1


def test_tables_are_combined_and_their_rows_kept_together():
    expansion = Expansion(
        [[{"animal": "fox", "place": "snow"}, {"animal": "owl", "place": "forest"}], "light=dawn,dusk"]
    )
    prompts = [row["prompt"] for row in rows(expansion, prompt="{{animal}} in {{place}} at {{light}}")]
    assert prompts == ["fox in snow at dawn", "fox in snow at dusk", "owl in forest at dawn", "owl in forest at dusk"]


def test_a_column_that_a_row_does_not_name_repeats_nothing():
    expansion = Expansion([[{"animal": "fox", "place": "snow"}, {"animal": "fox", "place": "forest"}]])
    assert [row["prompt"] for row in rows(expansion, prompt="a {{animal}}")] == ["a fox"]


def test_without_tables_a_manifest_is_as_it_was():
    assert rows(Expansion(), prompt="a {{colour}} fox") == [{"prompt": "a {{colour}} fox"}]
    assert Expansion().sign("abc") == "abc"


def test_a_variable_without_a_column_is_named_with_its_line():
    with pytest.raises(InvalidUsageError, match=r"line 1.*\{\{place\}\}.*colour"):
        rows(Expansion(["colour=red"]), prompt="{{colour}} {{place}}")


def test_too_many_combinations_are_refused_before_they_are_made():
    many = ",".join(map(str, range(400)))
    assert MOST_COMBINATIONS < 400**2
    with pytest.raises(InvalidUsageError, match="160000"):
        rows(Expansion([f"a={many}", f"b={many}"]), prompt="{{a}}{{b}}")


@pytest.mark.parametrize(
    ("tables", "wrong"),
    [
        (["a=1", "a=2"], "one of the tables only"),
        ([[]], "holds no rows"),
        ([[{"a": "1", "b": "2"}, {"a": "1"}]], "row 2 has no value for b"),
        (["nowhere.csv"], "nowhere.csv cannot be read"),
        (["nowhere.jsonl"], "nowhere.jsonl cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_explained(tables, wrong):
    with pytest.raises(InvalidUsageError, match=wrong):
        Expansion(tables)
