"""Pauses: bounded, never negative, and Retry-After in both of its forms."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluxwerk.protocol import patience

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
LATER = "Wed, 21 Oct 2015 07:28:30 GMT"


def asked(text, date=DATE):
    return patience.retry_after({"retry-after": text, "date": date})


def test_polls_begin_at_a_tenth_of_a_second_and_settle_at_two():
    pauses = list(islice(patience.poll_pauses(), 20))

    assert pauses[0] == 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 2.0


def test_ten_seconds_of_work_cost_fewer_than_a_dozen_polls():
    pauses, waited, polls = patience.poll_pauses(), 0.0, 0
    while waited < 10:
        waited += next(pauses)
        polls += 1

    assert polls < 12


def test_pauses_after_failures_double_from_half_a_second_to_eight():
    assert [patience.backoff(failures) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]


@given(st.integers(1, 10**9))
def test_no_number_of_failures_makes_a_pause_longer_than_eight_seconds(failures):
    assert 0 < patience.backoff(failures) <= 8


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
    assert patience.retry_after({}) is None


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
