"""The token of a session: genuine or nothing, and only for its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.server.state import sessions

SECRET, DIGEST = b"s" * 32, "ab" * 32


def test_a_token_opens_its_account_until_its_end():
    token = sessions.write(SECRET, DIGEST, 100.0)
    assert sessions.read(SECRET, token, 99.0) == DIGEST
    assert sessions.read(SECRET, token, 100.0) is None


def test_a_token_of_another_server_opens_nothing():
    assert sessions.read(b"t" * 32, sessions.write(SECRET, DIGEST, 100.0), 0.0) is None


@given(st.integers(0, 139), st.characters(codec="ascii"))
def test_a_token_that_was_changed_opens_nothing(at, letter):
    token = sessions.write(SECRET, DIGEST, 100.0)
    changed = token[: at % len(token)] + letter + token[at % len(token) + 1 :]
    assert changed == token or sessions.read(SECRET, changed, 0.0) is None


def test_two_ports_of_one_host_have_cookies_of_their_own():
    assert sessions.cookie_name("http://127.0.0.1:8000") != sessions.cookie_name("http://127.0.0.1:8001")
