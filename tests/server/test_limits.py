"""What an account is told about its slots with every answer."""

from __future__ import annotations

import json

import pytest

from fluxwerk.errors import NoResponseError
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing.face_to_face import BASE, FaceToFace
from fluxwerk.types import Flow, HttpRequest, Response
from support.asking import PRO, ask, face, json_of, kept, poll, post
from support.images import png


def limits(answer) -> tuple[int, int, int]:
    return tuple(int(answer.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset"))


def test_every_answer_to_a_known_account_tells_its_slots():
    of = face(seconds=5)
    submitted = post(of, {"prompt": "x"})
    now = int(of.clock.now())
    assert limits(submitted) == (24, 23, now + 5)
    for answer in (
        ask(of, "GET", "/v1/credits"),
        ask(of, "GET", json_of(submitted)["polling_url"]),
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


def test_the_reset_is_when_a_slot_becomes_free():
    """The reset is the moment at which a slot is free and now when none is taken."""
    of = face(seconds=2.5)
    post(of, {"prompt": "x"})
    reset = limits(ask(of, "GET", "/v1/credits"))[2]
    assert 0 <= reset - (of.clock.now() + 2.5) < 1
    of.clock.jump_to(reset)
    assert limits(ask(of, "GET", "/v1/credits")) == (24, 24, reset)


def reading(of: FaceToFace, url: str) -> Flow[Response]:
    """Begin a submit that waits for its image."""
    body = json.dumps({"prompt": "x", "input_image": url}).encode()
    flow = of.router.answer(HttpRequest("POST", BASE + "/v1/flux-kontext-max", body, headers={"x-key": "key"}))
    assert next(flow).request.url == url
    return flow


def test_submits_that_fetch_hold_slots_until_refused():
    """Submits that wait for their images hold slots and give them back when refused."""
    of = face(seconds=5)
    flows = [reading(of, f"https://slow.example/{n}.png") for n in range(6)]
    refused = post(of, {"prompt": "x"}, "/v1/flux-kontext-max")
    assert (refused.status, limits(refused)[:2]) == (429, (6, 0))
    with pytest.raises(StopIteration) as ended:
        flows[0].throw(NoResponseError("it did not answer in time"))
    assert ended.value.value.status == 422
    flows[1].close()
    with pytest.raises(StopIteration) as ended:
        flows[2].send(Response(200, body=png(64, 64)))
    assert (ended.value.value.status, limits(ended.value.value)[:2]) == (200, (6, 2))
    assert limits(post(of, {"prompt": "x"}, "/v1/flux-kontext-max"))[:2] == (6, 1)


def test_a_submit_is_not_accepted_once_the_server_closes():
    """A submit whose images arrive when the server closes is not accepted."""
    of = face()
    flow = reading(of, "https://slow.example/1.png")
    of.state.close()
    with pytest.raises(StopIteration) as ended:
        flow.send(Response(200, body=png(64, 64)))
    assert ended.value.value.status == 503
    assert kept(of.state) == {}


@pytest.mark.parametrize("key", [None, "a b", "another"])
def test_strangers_are_told_nothing(key):
    of = face(accounts=Accounts(["known"]))
    submitted = post(of, {"prompt": "x"}, key="known")
    assert "x-ratelimit-limit" not in ask(of, "GET", json_of(submitted)["polling_url"], key=key).headers
    assert poll(of, submitted)["status"] == "Ready"


def test_a_poll_with_an_unknown_key_opens_no_account():
    of = face()
    submitted = post(of, {"prompt": "x"})
    poll(of, submitted, "never seen".replace(" ", "-"))
    assert len(of.state.store.database.ask("select id from account")) == 1
