"""Pauses: bounded, never negative, Retry-After in both of its forms, and schedules that are worth their polls."""

from __future__ import annotations

import random
import statistics
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluxwerk.polling import schedule
from fluxwerk.polling.histogram import Histogram
from fluxwerk.protocol import retry

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
LATER = "Wed, 21 Oct 2015 07:28:30 GMT"


def asked(text, date=DATE):
    return retry.retry_after({"retry-after": text, "date": date})


def test_polls_begin_at_a_tenth_of_a_second_and_settle_at_two():
    plan = retry.geometric()
    pauses = [plan(None) for _ in range(20)]

    assert pauses[0] == 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 2.0


def test_ten_seconds_of_work_cost_fewer_than_a_dozen_polls():
    plan, waited, polls = retry.geometric(), 0.0, 0
    while waited < 10:
        waited += plan(None)
        polls += 1

    assert polls < 12


def test_pauses_after_failures_double_from_half_a_second_to_eight():
    assert [retry.backoff(failures) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]


@given(st.integers(1, 10**9))
def test_no_number_of_failures_makes_a_pause_longer_than_eight_seconds(failures):
    assert 0 < retry.backoff(failures) <= 8


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), (" 0 ", 0.0), ("1.5", 1.5), (LATER, 30.0)])
def test_retry_after_is_read_as_seconds_or_as_a_date(text, seconds):
    assert asked(text) == seconds


def test_a_date_that_has_passed_asks_for_no_pause():
    assert asked(DATE, LATER) == 0.0


def test_a_date_is_measured_against_the_clock_of_the_service():
    assert asked(LATER, "") is None


@pytest.mark.parametrize("text", ["", "soon", "-5", ".", "1e3", "٣", "Wed, 21 Oct 2015 07:28:00"])
def test_what_is_no_pause_is_not_guessed(text):
    assert asked(text) is None


def test_without_the_header_nothing_is_asked():
    assert retry.retry_after({}) is None


@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(
            r"[A-Z][a-z]{2}, [0-9]{1,30} Jan [0-9]{1,30} [0-9]{1,3}:00:00 (GMT|[+-][0-9]{1,20})", fullmatch=True
        ),
        st.datetimes().map(lambda moment: f"{moment:%a, %d %b %Y %H:%M:%S} GMT"),
    )
)
@example("Mon, 1 Jan 99999999999999999999 00:00:00 GMT")
@example("Mon, 1 Jan 2020 00:00:00 +99999999999999")
@example("9" * 500)
def test_whatever_the_header_says_the_pause_is_never_negative(text):
    seconds = asked(text)

    assert seconds is None or seconds >= 0


def drawn(name, number=600):
    """Durations in seconds as a service might have them, the same in every run."""
    dice = random.Random(name)
    draw = {
        "fixed": lambda _: 1.0,
        "lognormal": lambda _: dice.lognormvariate(-0.125, 0.5),
        "bimodal": lambda _: dice.choice((0.5, 3.0)),
        "drifting": lambda at: (0.5 + 1.5 * at / number) * dice.lognormvariate(-0.02, 0.2),
        "heavy": lambda _: 0.5 * dice.paretovariate(1.8),
    }[name]
    return [draw(at) for at in range(number)]


DISTRIBUTIONS = ["fixed", "lognormal", "bimodal", "drifting", "heavy"]


def looked(durations, plan_of):
    """Polls and delay of each task, when `plan_of` makes the pause before a poll from when the last one was."""
    found = []
    for seconds in durations:
        plan, at, polls = plan_of(), 0.0, 0
        while at < seconds or not polls:
            at += plan(at)
            polls += 1
        found.append((polls, at - seconds))
    return found


def geometric():
    plan = retry.geometric()
    return lambda _: plan(None)


def learned(durations, *, exact, price=schedule.PRICE):
    """The same for one who learns from each task, and knows nothing at first."""
    histogram, found, made = Histogram(), [], None
    for number, seconds in enumerate(durations):
        if number % 5 == 0:
            made = schedule.schedule(histogram, price)
        unknown, at, low, polls = retry.geometric(), 0.0, 0.0, 0
        while at < seconds or not polls:
            low, at, polls = at, at + (made.after(at) if made else unknown(None)), polls + 1
        histogram.learn(low, at, seconds if exact else None)
        found.append((polls, at - seconds))
    return found


def cost(found, price=schedule.PRICE):
    """What a task costs in the mean, in seconds, once the learning is over."""
    late = found[100:]
    return sum(price * polls + delay for polls, delay in late) / len(late)


def test_nothing_is_planned_from_too_little():
    histogram = Histogram()
    histogram.learn(0, 1, 1)
    histogram.learn(0, 1, 1)

    assert schedule.schedule(histogram, schedule.PRICE) is None


@pytest.mark.parametrize("exact", [True, False], ids=["told", "seen by polls"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_learned_polls_cost_less_than_half_of_the_geometric_ones(name, exact):
    durations = drawn(name)
    unlearned = looked(durations, geometric)

    assert cost(learned(durations, exact=exact)) < 0.55 * cost(unlearned)


@pytest.mark.parametrize("name", ["lognormal", "drifting", "heavy"])
def test_learned_polls_beat_the_best_steady_interval(name):
    """Learned polls cost less than the best steady ones found afterwards."""
    durations = drawn(name)
    steady = min(cost(looked(durations, lambda gap=gap: lambda _: gap / 100)) for gap in range(5, 100, 5))

    assert cost(learned(durations, exact=False)) < 0.95 * steady


def test_the_schedule_is_the_best_there_is_by_brute_force():
    # Ten ends are equally likely: whichever edges are chosen to look at, no choice is cheaper.
    ends = [0.5 + 0.1 * number for number in range(10)]
    histogram = Histogram()
    for end in ends * 40:
        histogram.learn(0, end, end)
    price = 0.03
    made = schedule.schedule(histogram, price)

    def spent(moments):
        return sum(
            price * (1 + sum(moment < end for moment in moments)) + min(m for m in (*moments, 3.0) if m >= end) - end
            for end in ends
        )

    moments = [1.45 * number / 40 + 0.05 for number in range(41)]
    best = min(spent(chosen) for count in range(2, 5) for chosen in combinations(moments[8:], count)) / len(ends)
    mine, at = [], 0.0
    while at < 1.5:
        at += made.after(at)
        mine.append(at)

    assert spent(mine) / len(ends) < 1.1 * best


def test_a_dearer_poll_is_rarer_and_a_schedule_foretells_its_cost():
    durations = drawn("lognormal", 4000)
    histogram = Histogram()
    for seconds in durations[:400]:
        histogram.learn(0, seconds, seconds)
    cheap, dear = schedule.schedule(histogram, 0.01), schedule.schedule(histogram, 0.04)
    found = looked(durations[400:], lambda: cheap.after)

    assert cheap.polls > 1.5 * dear.polls
    assert cheap.delay < dear.delay
    assert cheap.rate == pytest.approx(cheap.polls / (1.0 + cheap.delay), rel=0.15)
    assert sum(polls for polls, _ in found) / len(found) == pytest.approx(cheap.polls, rel=0.2)
    assert sum(delay for _, delay in found) / len(found) == pytest.approx(cheap.delay, rel=0.2)


def test_between_two_humps_nothing_is_polled_for():
    histogram = Histogram()
    for seconds in [0.5, 3.0] * 100:
        histogram.learn(0, seconds, seconds)
    made = schedule.schedule(histogram, schedule.PRICE)
    at, moments = 0.0, []
    while at < 3.2:
        at += made.after(at)
        moments.append(at)

    assert sum(0.6 < moment < 2.4 for moment in moments) == 0


def test_one_straggler_in_a_heavy_tail_costs_a_twentieth_of_its_time():
    histogram = Histogram()
    for seconds in [1.0] * 50:
        histogram.learn(0, seconds, seconds)
    made = schedule.schedule(histogram, schedule.PRICE)

    assert made.after(20.0) == pytest.approx(1.0)
    assert made.after(100.0) == retry.LONGEST_POLL
    assert made.after(1.0) <= retry.LONGEST_POLL


@given(st.lists(st.floats(0.001, 5000), min_size=4, max_size=40), st.floats(0.001, 10), st.floats(0, 10_000))
def test_whatever_was_learned_a_pause_is_positive_and_bounded(durations, price, elapsed):
    histogram = Histogram()
    for seconds in durations:
        histogram.learn(0, seconds, seconds)
    made = schedule.schedule(histogram, price)
    pause = made.after(elapsed)

    assert pause > 0
    assert pause <= max(retry.LONGEST_POLL, elapsed) or not elapsed
    assert made.polls >= 1
    assert made.delay >= -1e-6


def test_fine_progress_leads_to_the_end_in_fewer_than_four_polls():
    found = []
    for seconds in drawn("lognormal", 300):
        at, polls = 0.4, 1
        while at < seconds:
            at += schedule.foresee(at, max(0.05, at / seconds // 0.05 * 0.05), 0.05, schedule.CROWD_PRICE)
            polls += 1
        found.append((polls, max(0.0, at - seconds)))

    assert sum(polls for polls, _ in found) / len(found) < 4
    assert statistics.median(delay for _, delay in found) < 0.03


@given(st.floats(0.01, 5000), st.floats(0.001, 0.999), st.floats(0.01, 1), st.floats(0.001, 0.1))
def test_false_progress_never_lengthens_a_pause_beyond_the_age(elapsed, share, grain, price):
    """Progress that lies never makes a pause longer than the task is old."""
    pause = schedule.foresee(elapsed, share, grain, price)

    assert 0 < pause <= max(retry.LONGEST_POLL, elapsed)
