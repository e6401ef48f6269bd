"""Questions about polls: unknown tasks, keys, words, and what a finished task names."""

from __future__ import annotations

from typing import cast

from fluxwerk.conform.account import WRONG_KEY
from fluxwerk.conform.asker import Asker, body_of, host_of, polling_url, refusal_of
from fluxwerk.conform.check import Checks, Observed
from fluxwerk.types import Json

POLLS = Checks("polls")


def _told(ask: Asker, path: str) -> Observed:
    answer = ask.get(path)
    return Observed({**refusal_of(answer), "word": body_of(answer).get("status")})


@POLLS.add()
def unknown_task(ask: Asker) -> Observed:
    """What is answered about a task that nobody has?"""
    return _told(ask, f"/v1/get_result?id={WRONG_KEY}")


@POLLS.add()
def malformed_task(ask: Asker) -> Observed:
    """What is answered about an id that is no id?"""
    return _told(ask, "/v1/get_result?id=nothing")


@POLLS.add()
def poll_without_an_id(ask: Asker) -> Observed:
    """What is answered to a poll without an id?"""
    return _told(ask, "/v1/get_result")


@POLLS.add(shared=True)
def submit_fields(ask: Asker) -> Observed:
    """What does the answer to a submit name?"""
    names = sorted(ask.shared().submitted)
    return Observed(names, {"id", "polling_url"} <= set(names))


@POLLS.add(shared=True)
def poll_fields(ask: Asker) -> Observed:
    """What does the poll of a finished task name?"""
    last = ask.shared().last
    return Observed(sorted(last), last.get("status") == "Ready" and {"id", "result"} <= set(last))


@POLLS.add(shared=True)
def result_fields(ask: Asker) -> Observed:
    """What does the result of a finished task name?"""
    result = ask.shared().last.get("result")
    names = sorted(cast("dict[str, Json]", result)) if isinstance(result, dict) else []
    return Observed(names, "sample" in names)


@POLLS.add(shared=True, varies=True)
def words_on_the_way(ask: Asker) -> Observed:
    """Which words do the polls of a task say, in which order?"""
    words = [str(body_of(poll).get("status")) for poll in ask.shared().polls]
    return Observed(list(dict.fromkeys(words)), words[-1] == "Ready")


@POLLS.add(shared=True, varies=True)
def progress(ask: Asker) -> Observed:
    """Which progress do polls name before the end?"""
    return Observed([body_of(poll).get("progress") for poll in ask.shared().polls[:-1]])


@POLLS.add(shared=True)
def poll_without_a_key(ask: Asker) -> Observed:
    """May a task be polled without a key?"""
    url = polling_url(ask.base, ask.shared().submitted)
    return Observed(ask.get(url, keyed=False).status)


@POLLS.add(shared=True)
def poll_with_an_unknown_key(ask: Asker) -> Observed:
    """May a task be polled with a key that nobody has?"""
    url = polling_url(ask.base, ask.shared().submitted)
    return Observed(ask.get(url, keyed=False, x_key=WRONG_KEY).status)


@POLLS.add(shared=True)
def poll_at_the_base_url(ask: Asker) -> Observed:
    """Is a task known at the base URL too, where its polling URL names another host?"""
    answer = ask.get(f"/v1/get_result?id={ask.shared().submitted['id']}")
    return Observed([answer.status, body_of(answer).get("status")])


@POLLS.add(shared=True, varies=True)
def polling_host(ask: Asker) -> Observed:
    """At which host is a task polled?"""
    return Observed(host_of(polling_url(ask.base, ask.shared().submitted)))


# Our own server signs a link anew once a second has passed.
@POLLS.add(shared=True, varies=True)
def second_poll(ask: Asker) -> Observed:
    """Does a later poll name the same link, or a fresh one?"""
    made = ask.shared()
    again = body_of(ask.get(polling_url(ask.base, made.submitted))).get("result")
    link = cast("dict[str, Json]", again).get("sample") if isinstance(again, dict) else None
    return Observed("none" if not link else "the same" if link == made.link else "a fresh one", bool(link))


@POLLS.add(shared=True, varies=True)
def seconds_to_the_image(ask: Asker) -> Observed:
    """How many seconds does a small image take, and how many polls were made?"""
    made = ask.shared()
    return Observed([round(made.seconds, 1), len(made.polls)])
