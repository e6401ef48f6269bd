"""Which servers keep the keys of submits, as their answers say."""

from __future__ import annotations

import pytest

from fluxwerk.protocol.idempotency import Promises, key_of, read_promise, write_promise
from fluxwerk.types import HttpRequest, Response

BASE = "https://images.example"


def test_a_promise_is_read_as_it_was_written():
    assert read_promise(Response(200, write_promise(3600.0))) == 3600
    assert read_promise(Response(200)) == 0


@pytest.mark.parametrize("text", ["", "yes", "-1", "1e9"])
def test_a_promise_that_is_no_number_of_seconds_is_none(text):
    assert read_promise(Response(200, {"x-fluxwerk-idempotency": text})) == 0


def test_a_server_is_known_by_its_origin():
    promises = Promises()
    promises.note(HttpRequest("GET", f"{BASE}/v1/credits"), Response(200, write_promise(60)))

    assert promises.seconds(f"{BASE}/v1/flux-2-pro") == 60
    assert promises.seconds("https://other.example/v1/credits") is None


def test_the_live_service_is_known_to_keep_no_keys():
    assert Promises().seconds("https://api.eu.bfl.ai/v1/flux-2-pro") == 0


def test_a_later_answer_without_the_promise_ends_it():
    promises = Promises()
    promises.note(HttpRequest("GET", BASE), Response(200, write_promise(60)))
    promises.note(HttpRequest("GET", BASE), Response(200))

    assert promises.seconds(BASE) == 0


def test_the_error_page_of_a_proxy_neither_makes_nor_ends_a_promise():
    promises = Promises()
    promises.note(HttpRequest("GET", BASE), Response(502))
    assert promises.seconds(BASE) is None

    promises.note(HttpRequest("GET", BASE), Response(200, write_promise(60)))
    promises.note(HttpRequest("GET", BASE), Response(502))
    assert promises.seconds(BASE) == 60


def test_the_garbled_answer_to_a_submit_does_not_end_a_promise():
    promises = Promises()
    promises.note(HttpRequest("POST", BASE), Response(200, write_promise(60)))
    promises.note(HttpRequest("POST", BASE), Response(200, {}, b"<html>"))

    assert promises.seconds(BASE) == 60


def test_an_address_that_cannot_be_read_promises_nothing():
    promises = Promises()
    promises.note(HttpRequest("GET", "ftp://images.example"), Response(200, write_promise(60)))

    assert promises.seconds("ftp://images.example") is None


def test_a_key_is_always_the_same_and_does_not_show_its_token():
    assert key_of("token") == key_of("token") != key_of("other")
    assert "token" not in key_of("token")
