"""The ledger's tables: made when the file is new, brought up to date when it is old, refused when it is newer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger.database import SQLiteDatabase

# Each file makes the version of its place, counted from 1, out of the one before; none is ever changed once released.
MIGRATIONS = ("migration-1.sql", "migration-2.sql", "migration-3.sql")
# Every database can be asked this way whether it is empty, without knowing its catalogue.
VERSION = "select value from settings where name = 'schema'"
SET_VERSION = """
    insert into settings (name, value) values ('schema', :version)
    on conflict (name) do update set value = excluded.value
"""


def prepare(database: SQLiteDatabase, migrations: Sequence[str] | None = None) -> int:
    """Bring the tables to the newest version, in one transaction, and return it; raises `InvalidUsageError` if not.

    `migrations` are SQL texts, those of this release by default.
    """
    texts = read_migrations() if migrations is None else migrations
    with database.read():
        version = _version(database)
    if version == len(texts):
        return version
    with database.write() as transaction:
        version = _version(database)
        if version > len(texts):
            raise InvalidUsageError(
                f"The ledger {database.path} was written by a newer fluxwerk (version {version} of its tables, this "
                f"release knows {len(texts)}): pip install -U fluxwerk"
            )
        for text in texts[version:]:
            database.script(text)
        transaction.run(SET_VERSION, version=str(len(texts)))
    return len(texts)


def read_migrations() -> list[str]:
    """Read the SQL of every version of this release."""
    return [files("fluxwerk.ledger").joinpath(name).read_text(encoding="utf-8") for name in MIGRATIONS]


def _version(database: SQLiteDatabase) -> int:
    tables = database.tables()
    if not tables:
        return 0
    if not {"settings", "jobs"} <= tables:
        raise InvalidUsageError(f"{database.path} is a database, but not a ledger of fluxwerk; name another file.")
    with database.read() as transaction:
        row = transaction.one(VERSION)
    return int(row["value"]) if row else 0
