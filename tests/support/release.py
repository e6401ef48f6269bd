"""A release after this one: a copy of the package whose tables have one more version."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import fluxwerk
from fluxwerk.server.state.migrations import MIGRATIONS

NEXT = len(MIGRATIONS) + 1
# What a release may do while the one before still works: new tables, and columns that have a default.
SQL = """
create table novelty (id text primary key);
alter table task add column novelty text not null default 'none';
alter table account add column novelty text;
"""


def next_release(folder: Path, oldest: int = NEXT - 1) -> dict[str, str]:
    """Write the copy, beside which tables from the version `oldest` on work; returns the environment that runs it."""
    source = Path(fluxwerk.__file__).parent
    shutil.copytree(source, folder / "fluxwerk", ignore=shutil.ignore_patterns("__pycache__"))
    state = folder / "fluxwerk" / "server" / "state"
    (state / f"migration-{NEXT}.sql").write_text(SQL, encoding="utf-8")
    module = state / "migrations.py"
    text = module.read_text(encoding="utf-8")
    last = f'Migration("{MIGRATIONS[-1].file}", {MIGRATIONS[-1].oldest}),\n'
    assert text.count(last) == 1, "the list of migrations is written in another way"
    another = f'    Migration("migration-{NEXT}.sql", {oldest}),\n'
    module.write_text(text.replace(last, f"{last}{another}"), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder)}
