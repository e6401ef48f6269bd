"""Which tasks a list shows: an account's own, the newest first, as far as they fit."""

from __future__ import annotations

import pytest

from support.asking import ask, face, fault, json_of, post


@pytest.fixture
def filled():
    of = face()
    for number, prompt in enumerate(("a red fox", "a Blue heron", "a red heron")):
        of.clock.sleep(10)
        post(of, {"prompt": prompt, "width": 64, "height": 64}, "/v1/flux-2-max" if number == 1 else "/v1/flux-2-pro")
    post(of, {"prompt": "a red fox of somebody else"}, key="another")
    return of


def prompts(of, query: str = "") -> list[str]:
    return [row["prompt"] for row in json_of(ask(of, "GET", f"/v1/tasks?{query}"))["tasks"]]


def test_the_newest_task_comes_first_and_no_other_account_is_shown(filled):
    assert prompts(filled) == ["a red heron", "a Blue heron", "a red fox"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=heron", ["a red heron", "a Blue heron"]),
        ("q=blue", ["a Blue heron"]),
        ("q=heron+red", ["a red heron"]),
        ("model=flux-2-max", ["a Blue heron"]),
        ("q=owl", []),
    ],
)
def test_a_list_shows_what_fits_the_query(filled, query, found):
    assert prompts(filled, query) == found


def test_a_list_goes_on_behind_the_last_task_that_was_shown(filled):
    first = json_of(ask(filled, "GET", "/v1/tasks?limit=1"))
    assert first["more"] is True
    assert prompts(filled, f"before={first['tasks'][0]['id']}") == ["a Blue heron", "a red fox"]


def test_a_list_shows_what_was_accepted_within_a_time(filled):
    rows = json_of(ask(filled, "GET", "/v1/tasks"))["tasks"]
    assert prompts(filled, f"since={rows[1]['accepted']}&until={rows[0]['accepted']}") == ["a Blue heron"]


@pytest.mark.parametrize("query", ["since=yesterday", "until=-1", "since=1e9", "until="])
def test_a_time_that_is_no_number_is_refused(filled, query):
    assert ask(filled, "GET", f"/v1/tasks?{query}").status == 422


@pytest.mark.parametrize("name", ["q", "status", "model", "tag", "before"])
def test_a_search_with_a_nul_is_refused(filled, name):
    answer = ask(filled, "GET", f"/v1/tasks?{name}=a%00b")
    assert fault(answer) == (422, ["query", name], "Input should be a text without NUL characters")
