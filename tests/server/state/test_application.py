"""Periods of budgets, and the rate of submits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.server.state.application import (
    MINUTE,
    Application,
    day_of,
    first_day,
    renewal,
    retry_after,
    throttle,
)

NOW = datetime(2026, 11, 26, 15, 30, tzinfo=UTC).timestamp()
moments = st.floats(0, 4e9)
rates = st.integers(1, 10_000)


def test_a_charge_belongs_to_its_day_in_utc():
    assert day_of(NOW) == "2026-11-26"
    assert day_of(datetime(2026, 11, 26, 23, 59, 59, tzinfo=UTC).timestamp()) == "2026-11-26"


@pytest.mark.parametrize(
    ("period", "first", "next_"),
    [
        ("day", "2026-11-26", "2026-11-27"),
        ("week", "2026-11-23", "2026-11-30"),
        ("month", "2026-11-01", "2026-12-01"),
        ("total", "1970-01-01", None),
    ],
)
def test_a_budget_counts_from_the_first_day_of_its_period(period, first, next_):
    assert first_day(period, NOW) == first
    renewed = renewal(period, NOW)
    assert (None if renewed is None else day_of(renewed)) == next_


@given(st.sampled_from(["day", "week", "month"]), moments)
def test_every_moment_is_in_exactly_one_period(period, now):
    end = renewal(period, now)
    assert first_day(period, now) <= day_of(now) < day_of(end)
    assert first_day(period, end) == day_of(end)


def submits(rate: int, times: list[float]) -> list[float]:
    """Return the moments at which submits were taken."""
    reached, taken = 0.0, []
    for now in times:
        reached, wait = throttle(reached, now, rate)
        if not wait:
            taken.append(now)
    return taken


@given(st.integers(1, 50), st.lists(st.floats(0, 300), max_size=200).map(sorted))
def test_no_minute_sees_more_than_twice_its_rate(rate, times):
    """A minute that begins with a whole rate in hand sees at most that and its own."""
    taken = submits(rate, times)
    for start in taken:
        assert sum(start <= moment < start + MINUTE for moment in taken) <= 2 * rate


@given(rates)
def test_a_whole_minutes_submits_may_come_at_once(rate):
    assert len(submits(rate, [100.0] * (rate + 5))) == rate


@given(rates, moments)
def test_a_submit_after_the_wait_that_was_told_is_taken(rate, now):
    reached = 0.0
    for _ in range(rate):
        reached, _ = throttle(reached, now, rate)
    _, wait = throttle(reached, now, rate)
    assert 0 < wait <= MINUTE
    assert throttle(reached, now + retry_after(wait), rate)[1] == 0


def test_an_application_may_use_the_models_it_was_given():
    shop = Application("shop", models=frozenset({"flux-2-pro"}))
    assert shop.may_use("flux-2-pro")
    assert not shop.may_use("flux-2-max")
    assert Application("shop").may_use("flux-2-max")
