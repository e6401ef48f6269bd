"""The table that says how our OpenAPI covers the live one is true, and nothing of an image path is missing in it."""

from __future__ import annotations

import pytest

from support import coverage_table


def test_the_page_is_what_the_two_specifications_say():
    assert coverage_table.PAGE.read_text(encoding="utf-8") == coverage_table.page()


def test_only_fine_tuning_and_internals_are_missing():
    """Only fine-tuning and internal fields are missing, and no field is stricter than the API's."""
    rows = coverage_table.compare()
    assert {row.why for row in rows if "missing" in (row.april, row.october)} <= {
        coverage_table.NOT_SERVED,
        coverage_table.LEFT_OUT["input_image_blob_path"],
    }
    assert not [row for row in rows if "stricter" in (row.april, row.october)]
    assert len(rows) > 400


def test_a_strict_endpoint_takes_no_field_that_october_lacks():
    assert [row for row in coverage_table.compare() if "extra" in (row.april, row.october)] == []


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, ("missing", "")),
        ({"seed": {"required": True}}, ("stricter", "required")),
        ({"seed": {"required": False}}, ("same", "")),
    ],
)
def test_a_difference_from_october_would_be_seen(given, verdict):
    assert coverage_table._compare_name("seed", {"seed": False}, given) == verdict
    assert coverage_table._compare_name("seed", {}, {"seed": {}}) == ("extra", "")
    assert coverage_table._compare_name("seed", {"seed": True}, {"seed": {}}) == ("wider", "not required")


def test_a_difference_would_be_seen():
    field = {"type": "integer", "minimum": 64, "required": False}
    assert coverage_table._compare("width", field, {}) == ("missing", "")
    assert coverage_table._compare("width", field, {"width": {**field, "minimum": 65}})[0] == "stricter"
    assert coverage_table._compare("width", field, {"width": {**field, "minimum": 63}})[0] == "wider"
    assert coverage_table._compare("width", field, {"width": {**field, "required": True}})[0] == "stricter"
    assert coverage_table._compare("width", field, {"width": {"type": "integer"}})[0] == "wider"
    assert coverage_table._compare("width", {}, {"width": {"maximum": 9}})[0] == "stricter"
