"""Trouble on demand: when a rule strikes, what it does, and what our client makes of it on a pretend clock."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fluxwerk import (
    APIStatusError,
    InDoubtError,
    InvalidUsageError,
    LinkExpiredError,
    ModerationError,
    NoResponseError,
    RateLimitError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
    UntrustedURLError,
)
from fluxwerk.server.faults import effects, rules
from fluxwerk.server.faults.effects import SpoiltResponse
from fluxwerk.server.faults.rules import DEEDS, FaultRule, Faults, Occasion, is_due, load
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import BASE, KEY, blank
from fluxwerk.types import HttpRequest, Response
from support.asking import PRO, ask, face, json_of, kept, post

POLL = Occasion("poll", "a fox", "flux-2-pro", "1")


def strikes(rule: FaultRule, times: int, occasion: Occasion = POLL) -> list[int]:
    script = Faults([rule])
    return [number for number in range(1, times + 1) if script.meet(occasion)]


def rule(**how) -> FaultRule:
    return FaultRule(**{"on": "poll", "do": "status", **how})


def posts(of: FaceToFace) -> int:
    return sum(request.method == "POST" for request in of.journal)


@pytest.mark.parametrize(
    ("when", "struck"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"nth": 2}, [2]),
        ({"nth": (2, 5)}, [2, 5]),
        ({"first": 2}, [1, 2]),
        ({"every": 3}, [3, 6]),
        ({"after": 4}, [5, 6]),
        ({"after": 1, "first": 2}, [2, 3]),
        ({"every": 2, "first": 4}, [2, 4]),
        ({"chance": 0.0}, []),
        ({"model": "flux-2-*"}, [1, 2, 3, 4, 5, 6]),
        ({"model": "flux-kontext-*"}, []),
        ({"prompt": "f.x"}, [1, 2, 3, 4, 5, 6]),
        ({"prompt": "^fox"}, []),
        ({"on": "download"}, []),
    ],
)
def test_a_rule_strikes_when_it_says(when, struck):
    assert strikes(rule(**when), 6) == struck


def test_a_rule_counts_per_task_if_it_says_so():
    script = Faults([rule(nth=1, per_task=True)])
    tasks = ["1", "1", "2", "1", "2"]
    struck = [script.meet(Occasion("poll", task=task)) is not None for task in tasks]
    assert struck == [True, False, True, False, False]


def test_only_occasions_that_a_rule_is_about_are_counted():
    script = Faults([rule(prompt="fox", nth=2)])
    prompts = ["fox", "cat", "fox"]
    assert [script.meet(Occasion("poll", prompt)) is not None for prompt in prompts] == [False, False, True]


def test_chance_is_the_same_in_every_run_and_another_with_another_seed():
    def run(seed: int) -> list[bool]:
        script = Faults([rule(chance=0.5)], seed)
        return [script.meet(POLL) is not None for _ in range(50)]

    assert run(1) == run(1) != run(2)
    assert 10 < sum(run(1)) < 40


def test_the_first_rule_that_is_due_strikes_and_the_others_count_on():
    script = Faults([rule(nth=1, status=500), rule(nth=2, status=502)])
    struck = [script.meet(POLL) for _ in range(3)]
    assert [one.status if one else None for one in struck] == [500, 502, None]


@given(st.integers(1, 20), st.integers(0, 20), st.integers(1, 5), st.integers(1, 100), st.floats(0, 0.99))
def test_whether_a_rule_is_due_depends_on_the_number_and_the_roll_alone(first, after, every, number, roll):
    given_ = rule(first=first, after=after, every=every)
    past = number - after
    assert is_due(given_, number, roll) == (0 < past <= first and past % every == 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": "submit", "do": "truncate"},
        {"on": "lunch", "do": "status"},
        {"on": "poll", "do": "status", "nth": 0},
        {"on": "poll", "do": "status", "chance": 2},
        {"on": "poll", "do": "status", "status": 99},
        {"on": "poll", "do": "status", "prompt": "("},
        {"on": "poll", "do": "status", "wehn": 1},
        {"do": "status"},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        FaultRule(**wrong)


def test_a_script_is_read_from_toml(tmp_path):
    file = tmp_path / "trouble.toml"
    file.write_text('seed = 7\n[[rule]]\non = "poll"\ndo = "status"\nstatus = 503\nnth = [1, 3]\n[[rule]]\n'
                    'on = "download"\ndo = "cut"\nshare = 0.25\n')  # fmt: skip
    script = load(file)
    assert [one.do for one in script.rules] == ["status", "cut"]
    assert [script.meet(POLL) is not None for _ in range(4)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("text", "said_"),
    [
        ("seed = ", "cannot be read"),
        ('[[rule]]\non = "poll"\ndo = "dance"\n', "rule.0: .*on poll the server can .*not 'dance'"),
        ("[[rules]]\n", "rules: Extra inputs"),
    ],
)
def test_a_script_that_is_wrong_names_the_rule(tmp_path, text, said_):
    file = tmp_path / "trouble.toml"
    file.write_text(text)
    with pytest.raises(InvalidUsageError, match=said_):
        load(file)


def test_a_script_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InvalidUsageError, match="cannot be read"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize("place", ["submit", "poll", "download"])
@pytest.mark.parametrize("deed", sorted(rules.ANSWER_DEEDS))
def test_every_deed_that_spoils_an_answer_changes_it(place, deed):
    if deed in DEEDS[place]:
        answer = Response(200, {"content-type": "application/json"}, b'{"id":"1","status":"Ready"}')
        spoilt = effects.spoil(FaultRule(on=place, do=deed), answer)
        assert spoilt != answer


def troubled(*rules: FaultRule, **how) -> FaceToFace:
    return FaceToFace(trouble=rules, **how)


@pytest.mark.parametrize("retry_after", [3, "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_busy_server_names_its_retry_after_as_it_was_told(retry_after):
    of = face(trouble=[FaultRule(on="submit", do="status", status=429, retry_after=retry_after)])
    answer = post(of, {"prompt": "x"})
    assert (answer.status, answer.headers["retry-after"]) == (429, str(retry_after))
    assert kept(of.state) == {}


def test_a_busy_submit_is_repeated_after_the_pause_it_was_told():
    of = troubled(FaultRule(on="submit", do="status", status=429, retry_after=7, first=2))
    began = of.clock.now()
    assert of.generate("x").cost == 3
    assert of.clock.now() - began >= 14
    assert len(kept(of.state)) == 1


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("deed", [{"do": "reset"}, {"do": "status", "status": 500}, {"do": "garble"}, {"do": "page"}])
def test_a_lost_answer_is_in_doubt_accepted_or_not(deed, accepted):
    """A submit whose answer is lost is in doubt whether or not it was accepted."""
    of = troubled(FaultRule(on="submit", accepted=accepted, **deed))
    with pytest.raises(InDoubtError):
        of.generate("x")
    assert posts(of) == 1
    assert len(kept(of.state)) == accepted


@pytest.mark.parametrize("deed", ["cut", "stall"])
def test_a_submit_whose_answer_is_cut_off_was_accepted(deed):
    of = troubled(FaultRule(on="submit", do=deed))
    with pytest.raises(InDoubtError):
        of.generate("x", timeout=30)
    assert len(kept(of.state)) == 1


@pytest.mark.parametrize("place", ["poll", "download"])
@pytest.mark.parametrize(
    "deed",
    [
        {"do": "status", "status": 503, "retry_after": 2},
        {"do": "status", "status": 500},
        {"do": "page"},
        {"do": "garble"},
        {"do": "reset"},
        {"do": "cut"},
        {"do": "delay", "seconds": 5},
        {"do": "drip", "rate": 1000},
    ],
    ids=lambda deed: "-".join(str(value) for value in deed.values()),
)
def test_what_costs_nothing_is_repeated_and_never_submitted_again(place, deed):
    of = troubled(FaultRule(on=place, first=2, **deed))
    image = of.generate("x", width=64, height=64)
    assert image.data == blank(64, 64)
    assert posts(of) == 1


def test_a_truncated_image_is_never_taken_for_one():
    of = troubled(FaultRule(on="download", do="truncate", first=1))
    assert of.generate("x").data == blank(1024, 1024)


def test_a_stalled_poll_ends_at_the_deadline():
    of = troubled(FaultRule(on="poll", do="stall"))
    began = of.clock.now()
    with pytest.raises((TaskTimeoutError, NoResponseError)):
        of.generate("x", timeout=30)
    assert of.clock.now() - began <= 30.01


def test_a_slow_drip_takes_its_time():
    of = troubled(FaultRule(on="poll", do="drip", rate=100, first=1))
    began = of.clock.now()
    of.generate("x")
    assert of.clock.now() - began > 2


def test_an_unknown_status_counts_as_running():
    of = troubled(FaultRule(on="poll", do="word", word="Dreaming", first=3))
    of.generate("x")
    words = [event.status.word for event in of.events if event.kind == "polled"]
    assert words == ["Dreaming"] * 3 + ["Ready"]


def test_a_task_that_is_not_found_for_a_moment_is_asked_for_again():
    assert troubled(FaultRule(on="poll", do="forget", first=2)).generate("x").cost == 3
    with pytest.raises(TaskNotFoundError):
        troubled(FaultRule(on="poll", do="forget")).generate("x")


def test_a_dead_link_is_renewed_once():
    of = troubled(FaultRule(on="poll", do="expire", first=1))
    assert of.generate("x").cost == 3
    with pytest.raises(LinkExpiredError):
        troubled(FaultRule(on="download", do="expire")).generate("x")


def test_a_redirect_of_a_poll_is_not_followed():
    of = troubled(FaultRule(on="poll", do="redirect", to="https://evil.example/"))
    with pytest.raises((APIStatusError, UntrustedURLError)):
        of.generate("x")
    assert not any("evil" in request.url for request in of.journal)


def test_a_wrong_content_type_is_told_as_such():
    of = face(trouble=[FaultRule(on="submit", do="type")])
    assert post(of, {"prompt": "x"}).headers["content-type"] == "text/plain"
    assert troubled(FaultRule(on="poll", do="type")).generate("x").cost == 3


def test_a_rule_decides_how_a_task_ends():
    with pytest.raises(ModerationError) as caught:
        troubled(FaultRule(on="submit", do="moderate", stage="content", reasons=("Hate",))).generate("x")
    assert (caught.value.stage, caught.value.reasons) == ("content", ("Hate",))
    with pytest.raises(TaskFailedError):
        troubled(FaultRule(on="submit", do="fail")).generate("x")
    with pytest.raises(TaskTimeoutError):
        troubled(FaultRule(on="submit", do="stick")).generate("x", timeout=60)


def test_only_the_prompts_and_models_that_a_rule_names_suffer():
    of = troubled(FaultRule(on="submit", do="fail", prompt="bad"), accounts=Accounts(credit=Decimal(100)))
    assert of.generate("good").cost == 3
    with pytest.raises(TaskFailedError):
        of.generate("bad")


def test_a_rule_about_prompts_reads_no_prompt_from_what_is_none():
    of = face(trouble=[FaultRule(on="submit", do="status", prompt="x")])
    for body in (b"{", b"[" * 50_000, b"[]", {"prompt": 1}, {}):
        assert post(of, body).status == 422


def test_a_task_that_nobody_knows_has_trouble_too():
    of = face(trouble=[FaultRule(on="poll", do="status", status=502)])
    assert ask(of, "GET", "/v1/get_result?id=nobody").status == 502


def test_a_rule_has_nothing_to_do_with_other_paths():
    of = face(
        trouble=[
            FaultRule(on="submit", do="reset"),
            FaultRule(on="poll", do="reset"),
            FaultRule(on="download", do="reset"),
        ]
    )
    assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 1_000_000}
    assert ask(of, "GET", PRO).status == 405


def test_busy_for_too_long_is_reported_at_once():
    with pytest.raises(RateLimitError):
        troubled(FaultRule(on="submit", do="status", status=503, retry_after=999)).generate("x")


def test_a_spoilt_answer_without_a_deadline_ends_some_day():
    of = troubled(FaultRule(on="poll", do="stall"))
    poll = of.submit("x").polling_url
    began = of.clock.now()
    with pytest.raises(NoResponseError):
        of.send(HttpRequest("GET", poll))
    assert of.clock.now() - began == 60


def test_what_takes_longer_than_the_budget_does_not_arrive():
    of = troubled(FaultRule(on="poll", do="delay", seconds=10))
    poll = of.submit("x").polling_url
    with pytest.raises(NoResponseError, match="in time"):
        of.send(HttpRequest("GET", poll), 5.0)


def test_a_spoilt_answer_is_an_answer_all_the_same():
    of = face(trouble=[FaultRule(on="submit", do="cut")])
    answer = ask(of, "POST", BASE + PRO, {"prompt": "x"}, KEY)
    assert isinstance(answer, SpoiltResponse)
    assert answer.effect.breaks
    assert answer.effect.lasts(answer.body) == 0
