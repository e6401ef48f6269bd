"""The tables of the state: made when the database is new, brought up to date when it is old, refused when too new.

Each migration names the oldest release of the tables that can still work beside it, so that two releases run side by
side while servers are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

from fluxwerk.errors import InvalidUsageError
from fluxwerk.server.state.dialect import StateDatabase


class Migration(NamedTuple):
    """One file of SQL, and the oldest version of the tables whose release still understands what it makes."""

    file: str
    oldest: int


# Each makes the version of its place, counted from 1; none is ever changed once released.
MIGRATIONS = (
    Migration("migration-1.sql", 1),
    Migration("migration-2.sql", 1),
    Migration("migration-3.sql", 1),
    Migration("migration-4.sql", 1),
    Migration("migration-5.sql", 1),
)
READ = "select name, value from fact where name in ('version', 'oldest')"
WRITE = "insert into fact (name, value) values (:name, :value) on conflict (name) do update set value = excluded.value"


def prepare(database: StateDatabase, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the tables to the newest version under the database's lock; raises `InvalidUsageError` if they are too new.

    Tables that are newer than this release stay as they are, if they say that it can work with them.
    """
    with database.write() as transaction:
        database.lock_schema(transaction)
        version, oldest = _version(database)
        if oldest > len(migrations):
            raise InvalidUsageError(
                f"The state in {database.path} was written by a newer fluxwerk (version {version} of its tables; this "
                f"release knows {len(migrations)}): pip install -U fluxwerk"
            )
        for migration in migrations[version:]:
            text = files("fluxwerk.server.state").joinpath(migration.file).read_text(encoding="utf-8")
            database.script(text.replace("{number}", database.number))
        if version < len(migrations):
            transaction.run(WRITE, name="version", value=str(len(migrations)).encode())
            transaction.run(WRITE, name="oldest", value=str(migrations[-1].oldest).encode())


def _version(database: StateDatabase) -> tuple[int, int]:
    if "fact" not in database.tables():
        return 0, 0
    found = {row["name"]: int(bytes(row["value"])) for row in database.ask(READ)}
    return found.get("version", 0), found.get("oldest", 0)
