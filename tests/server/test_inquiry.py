"""What a flow asks of the state is answered where the flow is run, and its calls leave as before."""

from __future__ import annotations

import pytest

from fluxwerk.drive import drive
from fluxwerk.server.inquiry import AskingFlow, answered, ask, result_of
from fluxwerk.types import Call, HttpRequest, Response


def refuse() -> int:
    raise ValueError("no")


def test_a_flow_is_handed_the_answers_to_its_questions():
    def flow() -> AskingFlow[list[int]]:
        one = yield from ask(lambda: 1)
        other = yield from ask(lambda: one + 1)
        return [one, other]

    assert result_of(flow()) == [1, 2]


def test_what_an_answer_raises_can_be_caught_by_the_flow():
    def flow() -> AskingFlow[str]:
        try:
            yield from ask(refuse)
        except ValueError as error:
            return str(error)
        return "nothing was raised"

    assert result_of(flow()) == "no"


def test_what_a_flow_does_not_catch_reaches_who_runs_it():
    with pytest.raises(ValueError, match="no"):
        result_of(ask(refuse))


def test_questions_and_calls_may_follow_each_other():
    def flow() -> AskingFlow[int]:
        one = yield from ask(lambda: 200)
        response = yield Call(HttpRequest("GET", "http://a.test/"))
        other = yield from ask(lambda: response.status)
        return one + other

    assert drive(answered(flow()), lambda *_: Response(7)) == 207


def test_a_flow_that_was_begun_goes_on_from_its_last_step():
    def flow() -> AskingFlow[int]:
        first = yield from ask(lambda: 1)
        return first + (yield from ask(lambda: 1))

    begun = flow()
    step = next(begun)
    assert drive(answered(begun, step), lambda *_: Response(500)) == 2


def test_a_flow_that_should_only_ask_may_not_call():
    def flow() -> AskingFlow[Response]:
        return (yield Call(HttpRequest("GET", "http://a.test/")))

    with pytest.raises(RuntimeError, match="called another server"):
        result_of(flow())
