"""Advice on a prompt over HTTP: what the linter says, with places and mends."""

from __future__ import annotations

import pytest

from fluxwerk import prompt
from support.asking import ask, face, json_of


def test_the_advice_is_that_of_the_linter():
    text = "a cat without a collar"
    answer = ask(face(), "POST", "/v1/advice", {"model": "flux-2-pro", "prompt": text}, key=None)
    told = json_of(answer)["advice"]
    assert [one["message"] for one in told] == [one.message for one in prompt.lint(text, "flux-2-pro")]
    assert told


@pytest.mark.parametrize(
    "body", [{}, {"model": "flux-9", "prompt": "x"}, {"model": "flux-2-pro", "prompt": 5}, b"{", {"prompt": "x"}]
)
def test_a_question_that_makes_no_sense_is_refused(body):
    assert ask(face(), "POST", "/v1/advice", body).status == 422
