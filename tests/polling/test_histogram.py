"""The histogram of durations: close to the truth, slow to forget, and never fooled by what a file holds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.polling.histogram import (
    LAST_BIN,
    LONGEST_DURATION,
    MEMORY,
    SHORTEST_DURATION,
    Histogram,
    bin_of,
    edge,
    read_histogram,
    write_histogram,
)

SECONDS = st.floats(0, 20_000, allow_nan=False)


def exactly(*durations):
    histogram = Histogram()
    for seconds in durations:
        histogram.learn(0, seconds, seconds)
    return histogram


@given(st.floats(SHORTEST_DURATION, LONGEST_DURATION))
def test_every_duration_lies_in_its_bin_of_two_percent(seconds):
    number = bin_of(seconds)

    assert edge(number - 1) <= seconds * (1 + 1e-9)
    assert seconds <= edge(number) * (1 + 1e-9) or number == LAST_BIN
    assert edge(number) <= max(SHORTEST_DURATION, seconds * 1.0201)


@given(SECONDS, SECONDS, st.none() | SECONDS)
def test_an_observation_weighs_one_wherever_it_lies(one, other, exact):
    histogram = exactly(0.3, 1.0, 4.0)
    before = histogram.weight
    histogram.learn(min(one, other), max(one, other), exact)

    assert histogram.weight == pytest.approx(before / (1 + 1 / MEMORY) + 1)
    assert min(histogram.bins) >= 0
    assert max(histogram.bins) <= LAST_BIN


def test_quantiles_are_true_within_the_width_of_the_kernel():
    dice = random.Random(1)
    drawn = sorted(dice.lognormvariate(0, 0.5) for _ in range(200))
    histogram = exactly(*drawn)

    # Sorted input is the worst for a memory: what came last weighs most.
    assert histogram.quantile(1.0) == pytest.approx(drawn[-1], rel=0.07)
    assert exactly(*random.Random(2).sample(drawn, 200)).quantile(0.5) == pytest.approx(drawn[100], rel=0.1)


def test_what_is_not_known_has_no_quantile():
    assert Histogram().quantile(0.5) == 0.0
    assert Histogram().weight == 0.0


def test_what_lies_long_ago_is_forgotten():
    histogram = exactly(*[1.0] * int(4 * MEMORY), *[5.0] * int(2 * MEMORY))

    assert histogram.quantile(0.5) == pytest.approx(5.0, rel=0.05)
    assert histogram.quantile(0.05) == pytest.approx(1.0, rel=0.1)
    assert histogram.weight == pytest.approx(MEMORY, rel=0.05)


def test_a_long_life_does_not_make_weights_overflow():
    histogram = exactly(*[1.0] * 20_000)

    assert histogram.weight == pytest.approx(MEMORY, rel=0.02)
    assert max(histogram.bins.values()) < 1e12


def test_intervals_alone_find_a_fixed_duration():
    """Polls that tell only intervals find the fixed duration between them."""
    dice, histogram = random.Random(3), Histogram()
    for _ in range(300):
        low = 1.0 - dice.random() / 2
        histogram.learn(low, low + 0.5)

    assert histogram.quantile(0.25) == pytest.approx(1.0, rel=0.1)
    assert histogram.quantile(0.75) == pytest.approx(1.0, rel=0.1)


def test_what_is_written_is_read_back():
    histogram = exactly(0.2, 0.2, 3.0)
    again = read_histogram(write_histogram(histogram))

    assert again.quantile(0.5) == histogram.quantile(0.5)
    assert again.weight == pytest.approx(histogram.weight, rel=1e-3)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "bins",
        {"a": 1},
        {"-1": 1},
        {"99999": 1},
        {"1": "2"},
        {"1": True},
        {"1": -1},
        {"1": 1e9},
        {"1": None},
        {str(number): 2 for number in range(200)},
    ],
)
def test_what_is_not_a_histogram_is_refused(body):
    with pytest.raises(ValueError, match=r"."):
        read_histogram(body)
