"""Endings that a prompt asks for by name, as test cards end payments."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import ModerationError, TaskFailedError, TaskNotFoundError, TaskTimeoutError
from fluxwerk.server.faults import endings
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.tasks import KEEP
from fluxwerk.testing import FaceToFace
from support.asking import ask, face, json_of, kept, poll, post

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "server.md"
NAMES = ["request-moderated", "content-moderated", *endings.FIXED]


@pytest.mark.parametrize(
    ("prompt", "stage", "reasons"),
    [
        ("fluxwerk:request-moderated", "request", ("Violence",)),
        ("a fox fluxwerk:content-moderated", "content", ("Violence",)),
        ("fluxwerk:request-moderated=Self Harm, Sexual Content", "request", ("Self Harm", "Sexual Content")),
    ],
)
def test_a_moderated_prompt_ends_with_its_stage_and_reasons(prompt, stage, reasons):
    with pytest.raises(ModerationError) as caught:
        FaceToFace().generate(prompt)
    assert (caught.value.stage, caught.value.reasons) == (stage, reasons)


def test_a_moderated_task_polls_as_the_live_service_words_it():
    of = face()
    body = poll(of, post(of, {"prompt": "fluxwerk:request-moderated=Violence, Self Harm"}))
    assert (body["status"], body["result"]) == ("Request Moderated", None)
    assert body["details"] == {"Moderation Reasons": ["Violence", "Self Harm"]}


@pytest.mark.parametrize(("stage", "left"), [("request", 10), ("content", 7)])
def test_a_refused_request_costs_nothing_and_a_refused_image_was_made(stage, left):
    of = face(accounts=Accounts(credit=Decimal(10)))
    body = poll(of, post(of, {"prompt": f"fluxwerk:{stage}-moderated"}))
    assert body["cost"] == 10 - left
    assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": left}


@pytest.mark.parametrize(
    ("name", "code"),
    [("error", "internal_error"), ("timeout", "generation_timeout"), ("invalid-image", "invalid_image")],
)
def test_a_failing_prompt_fails_with_the_guides_code_and_costs_nothing(name, code):
    of = FaceToFace(accounts=Accounts(credit=Decimal(10)))
    with pytest.raises(TaskFailedError) as caught:
        of.generate(f"fluxwerk:{name}")
    assert caught.value.details["error"] == code
    assert of.credits() == 10


def test_an_ending_takes_as_long_as_an_image_would():
    of = face(seconds=5)
    submitted = post(of, {"prompt": "fluxwerk:error"})
    of.clock.sleep(4.9)
    assert poll(of, submitted)["status"] == "Pending"
    of.clock.sleep(0.1)
    assert poll(of, submitted)["status"] == "Error"


def test_a_task_can_be_forgotten_at_once():
    with pytest.raises(TaskNotFoundError):
        FaceToFace().generate("fluxwerk:not-found")


def test_a_task_that_never_ends_holds_its_slot_until_it_is_forgotten():
    of = FaceToFace()
    with pytest.raises(TaskTimeoutError) as caught:
        of.generate("fluxwerk:pending-forever", timeout=600)
    account = kept(of.state)[caught.value.task.id].account
    assert of.state.tasks.slots(account, "standard", of.clock.now()).busy == 1
    of.clock.sleep(KEEP)
    with pytest.raises(TaskNotFoundError):
        of.wait(caught.value.task)
    assert of.state.tasks.slots(account, "standard", of.clock.now()).busy == 0


def test_no_engine_is_asked_for_a_magic_prompt():
    class Tripwire:
        name = "tripwire"

        def render(self, order):
            raise AssertionError(order)

    of = face(engine=Tripwire())
    assert poll(of, post(of, {"prompt": "fluxwerk:request-moderated"}))["status"] == "Request Moderated"


def test_magic_can_be_switched_off():
    of = face(magic=False)
    assert poll(of, post(of, {"prompt": "fluxwerk:error"}))["status"] == "Ready"


@given(st.text())
def test_no_other_prompt_is_magic(prompt):
    if "fluxwerk:" not in prompt:
        assert endings.asked_for(prompt) is None


@pytest.mark.parametrize("prompt", ["fluxwerk:unknown", "fluxwerk: error", "FLUXWERK:error"])
def test_what_is_not_in_the_list_is_painted(prompt):
    of = face()
    assert poll(of, post(of, {"prompt": prompt}))["status"] == "Ready"


@pytest.mark.parametrize("name", NAMES)
def test_every_magic_prompt_is_documented(name):
    assert f"`fluxwerk:{name}`" in PAGE.read_text(encoding="utf-8")
