"""PostgreSQL behind the database port, as far as no server is needed; tests/fleet has the rest."""

from __future__ import annotations

import traceback

import pytest

from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger.postgresql import PostgresDatabase, is_address, shown, translate

pytest.importorskip("psycopg", reason="the extra fleet is not installed")


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("select :name", "select %(name)s"),
        ("where a = :a and b = :a_2", "where a = %(a)s and b = %(a_2)s"),
        ("select now()::float8", "select now()::float8"),
        ("like '%x' and b = :b", "like '%%x' and b = %(b)s"),
    ],
)
def test_named_parameters_are_written_as_the_driver_wants_them(sql, written):
    assert translate(sql) == written


def test_an_address_is_shown_without_user_password_and_options():
    assert shown("postgresql://user:CANARY@db.example:5433/flux?sslkey=CANARY") == "postgresql://db.example:5433/flux"
    assert is_address("postgresql://db/flux")
    assert not is_address("/a/folder")


def test_a_server_that_is_not_there_is_said_without_its_password():
    with pytest.raises(InvalidUsageError, match="cannot be used") as caught:
        PostgresDatabase("postgresql://user:CANARY@127.0.0.1:9/flux", timeout=0.5)
    assert "CANARY" not in str(caught.value)


def test_several_hosts_are_an_address():
    with pytest.raises(InvalidUsageError, match="cannot be used"):
        PostgresDatabase("postgresql://127.0.0.1:9,127.0.0.1:19/flux", timeout=0.5)


@pytest.mark.parametrize(
    "rest", ["user:CAN%ARY@db/flux", "user:CANARY/x@db/flux", "user:CANARY@db/flux?unknown=CANARY", "[CANARY/flux"]
)
def test_an_address_that_cannot_be_read_is_refused_without_its_password(rest):
    with pytest.raises(InvalidUsageError, match="cannot be read") as caught:
        PostgresDatabase(f"postgresql://{rest}", timeout=0.5)
    assert "CAN" not in "".join(traceback.format_exception(caught.value))
