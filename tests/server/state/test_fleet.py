"""What a fleet expects of Procrastinate, which hands its tasks over."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_versions_of_procrastinate_that_are_allowed_have_the_tables_that_fleets_were_made_with():
    """A newer migration would never run on the databases that are there: it needs one of ours before it is allowed."""
    schema = pytest.importorskip("procrastinate.schema", reason="the extra fleet is not installed")
    newest = max(file.name for file in Path(schema.SchemaManager.get_migrations_path()).glob("*.sql"))
    assert newest == "03.04.00_50_post_add_retry_failed_job_procedure.sql"
