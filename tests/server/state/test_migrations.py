"""The versions of the state's tables: brought up to date, shared with the release before, refused when too new."""

from __future__ import annotations

import re

import pytest

from fluxwerk.errors import InvalidUsageError
from fluxwerk.server.state import statements
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.migrations import MIGRATIONS, WRITE, prepare


def versions(database: StateFile) -> dict[str, bytes]:
    rows = database.ask("select name, value from fact where name in ('version', 'oldest')")
    return {row["name"]: bytes(row["value"]) for row in rows}


def set_version(database: StateFile, version: int, oldest: int) -> None:
    with database.write() as transaction:
        transaction.run(WRITE, name="version", value=str(version).encode())
        transaction.run(WRITE, name="oldest", value=str(oldest).encode())


def test_an_old_state_is_brought_up_to_date_and_a_new_one_is_made_so():
    old, new = StateFile(), StateFile()
    prepare(old, MIGRATIONS[:1])
    prepare(old)
    prepare(new)
    assert versions(old) == versions(new)
    assert old.tables() == new.tables()
    old.close()
    new.close()


def test_a_newer_state_that_says_so_is_shared_and_left_as_it_is():
    database = StateFile()
    prepare(database)
    set_version(database, len(MIGRATIONS) + 1, len(MIGRATIONS))
    prepare(database)
    assert versions(database)["version"] == str(len(MIGRATIONS) + 1).encode()
    database.close()


def test_a_state_that_is_too_new_is_refused():
    database = StateFile()
    prepare(database)
    set_version(database, len(MIGRATIONS) + 2, len(MIGRATIONS) + 1)
    with pytest.raises(InvalidUsageError, match="newer fluxwerk"):
        prepare(database)
    database.close()


OFTEN = ("HELD", "FIND", "FIND_REPEATED", "CLAIM", "BEGIN", "BUSY", "FORGOTTEN", "TAKE_WEBHOOKS")


@pytest.mark.parametrize("name", OFTEN)
def test_what_is_asked_all_the_time_goes_through_no_whole_table(name: str) -> None:
    database = StateFile()
    prepare(database)
    question = getattr(statements, name).format(skip_locked=database.skip_locked)
    values = dict.fromkeys(re.findall(r":(\w+)", question), 1)
    plan = [row["detail"] for row in database.ask(f"explain query plan {question}", **values)]
    database.close()
    assert plan
    assert not [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]
