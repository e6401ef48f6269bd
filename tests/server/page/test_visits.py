"""A browser's session: the key is exchanged for a cookie, and the cookie changes things only for the server's pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback
from support.asking import PRO

SMALL = {"prompt": "x", "width": 64, "height": 64}


@pytest.fixture(scope="module")
def locked():
    """A server that knows one key."""
    with loopback(accounts=Accounts(["a-key"])) as base:
        yield base


@contextmanager
def visitor(base: str, **body: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=base) as client:
        answer = client.post("/v1/session", json=body)
        assert answer.status_code == 200, answer.text
        yield client


def test_the_cookie_is_for_this_server_alone_and_no_script_reads_it(locked):
    cookie = httpx2.post(locked + "/v1/session", json={"key": "a-key"}).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "a-key" not in cookie
    assert cookie.startswith(f"fluxwerk_{httpx2.URL(locked).port}=")


def test_a_wrong_key_opens_no_session(locked):
    answer = httpx2.post(locked + "/v1/session", json={"key": "another"})
    assert (answer.status_code, answer.json()["error"]) == (403, "invalid_api_key")
    assert "set-cookie" not in answer.headers


def test_a_server_with_keys_opens_no_session_without_one(locked):
    assert httpx2.post(locked + "/v1/session", json={}).status_code == 403
    assert httpx2.get(locked + "/v1/session").json()["keyless"] is False


def test_a_server_without_keys_opens_one_session_for_all_of_its_machine(fluxwerk_server):
    with visitor(fluxwerk_server) as one, visitor(fluxwerk_server) as other:
        submitted = one.post(PRO, json=SMALL, headers={"origin": fluxwerk_server}).json()
        assert submitted["id"] in [row["id"] for row in other.get("/v1/tasks").json()["tasks"]]


def test_a_session_submits_for_the_pages_of_its_server(locked):
    with visitor(locked, key="a-key") as client:
        assert client.post(PRO, json=SMALL, headers={"origin": locked}).status_code == 200
        assert client.get("/v1/session").json()["signed_in"] is True


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:1", "http://localhost:1"])
def test_a_session_changes_nothing_for_another_page(locked, origin):
    with visitor(locked, key="a-key") as client:
        answer = client.post(PRO, json=SMALL, headers={"origin": origin} if origin else {})
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")


def test_a_session_is_not_begun_for_another_page(fluxwerk_server):
    answer = httpx2.post(fluxwerk_server + "/v1/session", json={}, headers={"origin": "http://127.0.0.1:1"})
    assert answer.status_code == 403


def test_a_session_ends(locked):
    with visitor(locked, key="a-key") as client:
        client.delete("/v1/session", headers={"origin": locked})
        assert client.get("/v1/session").json()["signed_in"] is False


@pytest.mark.parametrize("body", [b"[", b"[]", b'{"key": 5}', b"x" * 20_000])
def test_a_body_that_is_no_key_is_refused(locked, body):
    assert httpx2.post(locked + "/v1/session", content=body).status_code in (413, 422)
