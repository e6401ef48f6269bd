"""The values of the house: small, frozen, storable, and silent about what they hide."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from decimal import Decimal

import pytest

from fluxwerk.types import Call, Event, HttpRequest, Outcome, Request, Response, Status, Task, ignore_event, is_flux

TASK = Task("abc", "https://api.bfl.ai/v1/get_result?id=abc", "flux-2-pro", Decimal("4.5"), Decimal(0), Decimal("1.98"))
READY = Status(TASK, "Ready", Outcome.READY, url="https://delivery.bfl.ai/a.png?sig=secret", prompt="a private fox")


@pytest.mark.parametrize(
    "value",
    [TASK, READY, Request("flux-2-pro", {"prompt": "a fox"}, ((64, 64), None)), Call(HttpRequest("GET", "https://a"))],
    ids=lambda value: type(value).__name__,
)
def test_a_value_survives_the_way_to_another_process(value):
    assert pickle.loads(pickle.dumps(value)) == value


def test_a_value_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        TASK.id = "another"


def test_a_status_shows_neither_its_link_nor_its_prompt():
    assert "secret" not in repr(READY)
    assert "private" not in repr(READY)
    assert "Ready" in repr(READY)


def test_a_request_shows_no_fields_and_a_response_no_body():
    assert "fox" not in repr(Request("flux-2-pro", {"prompt": "a fox"}))
    assert "fox" not in repr(Response(200, {"location": "fox"}, b"fox"))
    assert "fox" not in repr(HttpRequest("POST", "https://fox", b"fox", headers={"a": "fox"}))


def test_silence_hears_an_event_and_says_nothing():
    assert ignore_event(Event("polled", TASK)) is None


@pytest.mark.parametrize(
    ("engine", "expected"),
    [(None, True), ("upstream", True), ("diffusers", True), ("offline", False), ("blank", False), ("unknown", None)],
)
def test_an_engine_tells_whether_flux_made_the_image_unless_the_server_does_not_know(engine, expected):
    assert is_flux(engine) is expected
