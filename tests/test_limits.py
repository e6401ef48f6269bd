"""What an account is told about its slots with every answer."""

from __future__ import annotations

import pytest

from asking import PRO, ask, face, poll, post, said
from fluxwerk.server.books import Books


def limits(answer) -> tuple[int, int, int]:
    return tuple(int(answer.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset"))


def test_every_answer_to_a_known_account_tells_its_slots():
    of = face(seconds=5)
    submitted = post(of, {"prompt": "x"})
    now = int(of.clock.now())
    assert limits(submitted) == (24, 23, now + 5)
    for answer in (
        ask(of, "GET", "/v1/credits"),
        ask(of, "GET", said(submitted)["polling_url"]),
        ask(of, "GET", "/v1/tasks"),
        post(of, {}),
        ask(of, "GET", "/v1/nothing"),
        ask(of, "DELETE", PRO),
    ):
        assert limits(answer) == (24, 23, now + 5)


def test_a_pool_of_its_own_is_told_at_its_own_path():
    of = face(seconds=5)
    answers = [post(of, {"prompt": "x"}, "/v1/flux-kontext-max") for _ in range(7)]
    assert [limits(answer)[:2] for answer in answers] == [(6, 5), (6, 4), (6, 3), (6, 2), (6, 1), (6, 0), (6, 0)]
    assert answers[-1].status == 429
    assert limits(post(of, {"prompt": "x"}))[:2] == (24, 23)


def test_the_reset_is_the_moment_at_which_a_slot_is_free_and_now_when_none_is_taken():
    of = face(seconds=2.5)
    post(of, {"prompt": "x"})
    reset = limits(ask(of, "GET", "/v1/credits"))[2]
    assert 0 <= reset - (of.clock.now() + 2.5) < 1
    of.clock.jump_to(reset)
    assert limits(ask(of, "GET", "/v1/credits")) == (24, 24, reset)


@pytest.mark.parametrize("key", [None, "a b", "another"])
def test_strangers_are_told_nothing(key):
    of = face(books=Books(["known"]))
    submitted = post(of, {"prompt": "x"}, key="known")
    assert "x-ratelimit-limit" not in ask(of, "GET", said(submitted)["polling_url"], key=key).headers
    assert poll(of, submitted)["status"] == "Ready"


def test_a_poll_with_an_unknown_key_opens_no_account():
    of = face()
    submitted = post(of, {"prompt": "x"})
    poll(of, submitted, "never seen".replace(" ", "-"))
    assert len(of.service.books._accounts) == 1
