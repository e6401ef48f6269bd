"""The table that says how our OpenAPI covers the live one is true, and nothing of an image path is missing in it."""

from __future__ import annotations

from support import coverage_table


def test_the_page_is_what_the_two_specifications_say():
    assert coverage_table.PAGE.read_text(encoding="utf-8") == coverage_table.page()


def test_only_fine_tuning_and_what_is_internal_are_missing_and_nothing_is_stricter():
    rows = [line.split(" | ") for line in coverage_table.page().splitlines() if line.startswith("| `")]
    assert {row[4].strip(" |") for row in rows if row[3] == "missing"} <= {
        "fine-tuning is not served",
        coverage_table.LEFT_OUT["input_image_blob_path"],
    }
    assert not [row for row in rows if row[3] == "stricter"]
    assert len(rows) > 250


def test_a_difference_would_be_seen():
    field = {"type": "integer", "minimum": 64, "required": False}
    assert coverage_table._compare("width", field, {}) == ("missing", "")
    assert coverage_table._compare("width", field, {"width": {**field, "minimum": 65}})[0] == "stricter"
    assert coverage_table._compare("width", field, {"width": {**field, "minimum": 63}})[0] == "wider"
    assert coverage_table._compare("width", field, {"width": {**field, "required": True}})[0] == "stricter"
    assert coverage_table._compare("width", field, {"width": {"type": "integer"}})[0] == "wider"
    assert coverage_table._compare("width", {}, {"width": {"maximum": 9}})[0] == "stricter"
