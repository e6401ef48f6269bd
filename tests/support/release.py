"""The releases beside this one: one whose tables have one more version, made up, and the last one that had one fewer.

No release has been published, so the one before is a commit: the last before the newest migration.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
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


def release_before(folder: Path) -> dict[str, str] | None:
    """Take the commit before the newest migration out of the history; `None` where the history is not there."""
    root = Path(fluxwerk.__file__).parents[2]
    file = f"src/fluxwerk/server/state/{MIGRATIONS[-1].file}"
    # A merge may have brought it, and counts for the line that it was merged into.
    line = ("log", "--first-parent", "-m", "--diff-filter=A", "--format=%H", "-1")
    added = _git(root, *line, "--", file).decode().strip()
    packed = _git(root, "archive", f"{added}^", "src/fluxwerk") if added else b""
    if not packed:
        return None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return {**os.environ, "PYTHONPATH": str(folder / "src")}


def _git(root: Path, *words: str) -> bytes:
    """Return what git says, or nothing where there is no git, no repository or no such commit."""
    if shutil.which("git") is None:
        return b""
    return subprocess.run(["git", "-C", root, *words], capture_output=True, check=False).stdout
