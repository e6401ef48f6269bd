"""Answers from storage: the same request with a seed is made once, and whoever asks again pays nothing."""

from __future__ import annotations

import os

import pytest

from fluxwerk.engines import Order
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.cache import digest_of
from fluxwerk.server.state.store import DiskStore
from fluxwerk.server.state.tasks import KEEP
from support.asking import ask, face, json_of, poll, post
from support.images import png, text

FOX = {"prompt": "a fox", "width": 128, "height": 64, "seed": 5}


class Counted:
    """An engine that counts, and never paints the same image twice."""

    name = "counted"

    def __init__(self) -> None:
        self.count = 0

    def render(self, _: Order) -> bytes:
        self.count += 1
        return png(64, 64 + self.count)


def image(of, submitted) -> bytes:
    return ask(of, "GET", poll(of, submitted)["result"]["sample"], key=None).body


def credits_of(of, key="key") -> int:
    return json_of(ask(of, "GET", "/v1/credits", key=key))["credits"]


def test_the_same_request_has_the_same_image_and_costs_nothing():
    engine = Counted()
    of = face(engine=engine, caches=True)
    first = post(of, FOX)
    made = image(of, first)
    left = credits_of(of)
    again = post(of, FOX)

    assert json_of(again)["cost"] == 0
    assert json_of(again)["id"] != json_of(first)["id"]
    body = poll(of, again)
    assert (body["result"]["cached"], body["cost"], body["result"]["seed"]) == (True, 0, 5)
    assert "cached" not in poll(of, first)["result"]
    assert (image(of, again), engine.count, credits_of(of)) == (made, 1, left)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"prompt": "a cat"},
        {"width": 64},
        {"output_format": "png"},
        {"safety_tolerance": 0},
        {"seed": None},
    ],
    ids=str,
)
def test_another_request_is_another_image(change):
    engine = Counted()
    of = face(engine=engine, caches=True)
    image(of, post(of, FOX))
    image(of, post(of, {**FOX, **change}))
    assert engine.count == 2


def test_another_input_image_is_another_request():
    engine = Counted()
    of = face(engine=engine, caches=True)
    for side in (64, 72, 64):
        image(of, post(of, {**FOX, "input_image": text(png(64, side))}))
    assert engine.count == 2


def test_who_asks_makes_no_difference():
    engine = Counted()
    of = face(engine=engine, caches=True)
    made = image(of, post(of, {**FOX, "user": "me"}))
    before = credits_of(of, "another")
    again = post(of, {**FOX, "user": "you"}, key="another")
    assert (image(of, again), engine.count) == (made, 1)
    assert credits_of(of, "another") == before


def test_a_server_answers_from_its_storage_only_when_it_is_told_to():
    engine = Counted()
    of = face(engine=engine)
    image(of, post(of, FOX))
    again = post(of, FOX)
    image(of, again)
    assert engine.count == 2
    assert "cached" not in poll(of, again)["result"]


def test_what_is_no_longer_kept_answers_nothing_and_a_copy_lives_on():
    engine = Counted()
    of = face(engine=engine, caches=True)
    made = image(of, post(of, FOX))
    of.clock.sleep(KEEP - 60)
    copy = post(of, FOX)
    of.clock.sleep(120)
    of.state.forget()
    assert image(of, copy) == made
    image(of, post(of, FOX))
    assert engine.count == 2


def test_a_magic_prompt_ends_as_it_says_although_nobody_is_asked():
    of = face(caches=True)
    for _ in range(2):
        assert poll(of, post(of, {"prompt": "fluxwerk:error", "seed": 5}))["status"] == "Error"


def test_an_answer_outlives_the_process(tmp_path):
    engine = Counted()
    for cached in (None, True):
        store = DiskStore(tmp_path)
        of = face(engine=engine, caches=True, accounts=Accounts(store=store))
        of.state.entropy = os.urandom  # otherwise ids come back with the process
        assert poll(of, post(of, FOX))["result"].get("cached") is cached
        store.close()
    assert engine.count == 1


def test_what_another_engine_made_answers_nothing(tmp_path):
    engines = [Counted(), OfflineEngine()]
    for engine in engines:
        store = DiskStore(tmp_path)
        of = face(engine=engine, caches=True, accounts=Accounts(store=store))
        of.state.entropy = os.urandom  # otherwise ids come back with the process
        result = poll(of, post(of, FOX))["result"]
        assert (result["engine"], "cached" in result) == (engine.name, False)
        store.close()


def test_without_a_seed_nothing_is_promised():
    assert digest_of(Order("flux-2-pro", "a fox", 7, 64, 64, asked={"width": 64})) is None
