"""One PostgreSQL for the group, and an empty database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from support.needed import do_without
from support.postgres import PostgresServer, find_programs, postgres

NUMBERS = count()


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    if find_programs() is None:
        do_without("postgresql", "PostgreSQL 15 or later is not installed (apt install postgresql)")
    with postgres() as running:
        yield running


@pytest.fixture
def database(server: PostgresServer) -> str:
    return server.make_database(f"state_{next(NUMBERS)}")
