"""Errors from one table, in the live service's dialect and in the guide's, read by our own client in both."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fluxwerk import AuthenticationError, InsufficientCreditsError, InvalidRequestError, RateLimitError
from fluxwerk.protocol import wire
from fluxwerk.server.errors import CASES, DIALECTS, ServerError, invalid, unfit
from fluxwerk.server.state.accounts import Accounts
from support.asking import PRO, ask, face, json_of, post


def guide(**how):
    return face(dialect="guide", **how)


def poor(of):
    of.state.accounts = Accounts(credit=Decimal(1))
    return post(of, {"prompt": "x"})


def full(of):
    return [post(of, {"prompt": "x"}) for _ in range(25)][-1]


SITUATIONS = {
    "no key": (lambda of: post(of, {"prompt": "x"}, key=None), 403, 401, "invalid_api_key", AuthenticationError),
    "malformed key": (
        lambda of: post(of, {"prompt": "x"}, key="a b"),
        422,
        401,
        "invalid_api_key",
        AuthenticationError,
    ),
    "bad body": (lambda of: post(of, {"width": 1}), 422, 400, "validation_error", InvalidRequestError),
    "no JSON": (lambda of: post(of, b"{"), 422, 400, "validation_error", InvalidRequestError),
    "no credits": (poor, 402, 402, "insufficient_credits", InsufficientCreditsError),
    "too many": (full, 429, 429, "rate_limit_exceeded", RateLimitError),
    "no such path": (lambda of: ask(of, "GET", "/v1/x"), 404, 404, "not_found", None),
    "no such method": (lambda of: ask(of, "DELETE", PRO), 405, 405, "method_not_allowed", None),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_dialect_has_its_own_status_and_both_have_the_guides_word(name):
    make, live, guided, word, _ = SITUATIONS[name]
    ours, theirs = make(face(seconds=5)), make(guide(seconds=5))
    assert (ours.status, theirs.status) == (live, guided)
    assert json_of(ours)["error"] == json_of(theirs)["error"] == word
    assert "detail" in json_of(ours)
    assert "detail" not in json_of(theirs)


@pytest.mark.parametrize("name", SITUATIONS)
def test_our_client_reads_either_dialect_as_the_same_error(name):
    make, *_, kind = SITUATIONS[name]
    if kind is not None:
        for answer in (make(face(seconds=5)), make(guide(seconds=5))):
            assert type(wire.read_refusal(answer)) is kind


def test_the_guides_body_names_each_field_in_its_details():
    body = json_of(post(guide(), {"width": 1, "seed": "x"}))
    assert set(body) == {"error", "message", "details"}
    assert set(body["details"]) == {"prompt", "width", "seed"}
    assert body["details"]["prompt"] == "Field required"


def test_the_guides_429_says_when_to_come_back_in_header_and_body():
    answer = full(guide(seconds=5))
    assert (answer.headers["retry-after"], json_of(answer)["retry_after"]) == ("1", 1)


def test_a_fault_of_the_whole_body_is_named_body():
    assert json_of(post(guide(), b"[]"))["details"] == {"body": json_of(post(face(), b"[]"))["detail"][0]["msg"]}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("case", CASES)
def test_every_case_of_the_table_can_be_written(case, dialect):
    answer = ServerError(case, "a sentence").answer(dialect)
    assert 400 <= answer.status < 600
    assert json_of(answer)["error"] == CASES[case].error
    assert json_of(answer)["message"] == "a sentence"


def test_an_unknown_dialect_of_keys_is_told_the_same_way():
    known = guide(accounts=Accounts(["known"]))
    assert post(known, {"prompt": "x"}, key="unknown").status == 401
    assert post(known, {"prompt": "x"}, key="known").status == 200


def test_a_refused_field_is_named_first_in_the_message():
    assert invalid([{"loc": ["query", "id"], "msg": "is missing"}]).message == "query.id: is missing"
    assert unfit("mask", "is odd").detail == [{"type": "value_error", "loc": ["body", "mask"], "msg": "is odd"}]
