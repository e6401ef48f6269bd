"""The balance as a witness: the arithmetic never settles wrongly, whoever else uses the account."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.protocol.witness import LEAST_TOP_UP, MICRO, Doubt, Verdict, count_ways, judge

# Prices as they are: from the cheapest image to the dearest.
COSTS = st.sampled_from([1_400_000, 3_000_000, 4_500_000, 6_000_000, 8_000_000, 24_000_000]) | st.integers(
    1, 30_000_000
)
# A cost, and whether it was charged.
OUTCOMES = st.lists(st.tuples(COSTS, st.booleans()), min_size=1, max_size=12)


def doubts_of(outcomes):
    return [Doubt(number, cost) for number, (cost, _) in enumerate(outcomes)]


def charged_of(outcomes):
    return {number for number, (_, charged) in enumerate(outcomes) if charged}


def total(outcomes):
    return sum(cost for cost, charged in outcomes if charged)


@given(OUTCOMES)
def test_what_is_settled_is_true_when_nobody_else_uses_the_account(outcomes):
    finding = judge(total(outcomes), doubts_of(outcomes))

    assert finding.verdict in (Verdict.SETTLED, Verdict.AMBIGUOUS)
    if finding.verdict is Verdict.SETTLED:
        assert set(finding.charged) == charged_of(outcomes)
        assert set(finding.not_charged) == set(range(len(outcomes))) - charged_of(outcomes)


@given(OUTCOMES, st.integers(0, 60_000_000))
def test_with_a_second_user_nothing_that_was_charged_is_settled_as_not_charged(outcomes, spent_by_another):
    finding = judge(total(outcomes) + spent_by_another, doubts_of(outcomes))

    assert not set(finding.not_charged) & charged_of(outcomes)
    if finding.most_charged is not None:
        assert finding.most_charged >= len(charged_of(outcomes))


@given(OUTCOMES, st.integers(LEAST_TOP_UP, 10 * LEAST_TOP_UP))
def test_a_top_up_in_between_settles_nothing(outcomes, top_up):
    finding = judge(total(outcomes) - top_up, doubts_of(outcomes))

    assert finding.verdict is not Verdict.SETTLED


@given(OUTCOMES)
def test_none_and_all_are_always_recognised(outcomes):
    doubts = doubts_of(outcomes)
    costs = sum(doubt.cost for doubt in doubts)

    assert judge(0, doubts).not_charged == tuple(range(len(outcomes)))
    assert judge(costs, doubts).charged == tuple(range(len(outcomes)))
    assert judge(costs + 1, doubts).verdict is Verdict.UNEXPLAINED


@given(st.lists(st.tuples(COSTS, COSTS, st.booleans()), min_size=1, max_size=8))
def test_an_estimate_that_is_wrong_never_hides_a_charge(outcomes):
    doubts = [Doubt(number, guess, exact=False) for number, (guess, _, _) in enumerate(outcomes)]
    finding = judge(sum(real for _, real, charged in outcomes if charged), doubts)

    assert not set(finding.not_charged) & {number for number, (_, _, charged) in enumerate(outcomes) if charged}


@pytest.mark.parametrize(("difference", "charged", "not_charged"), [(0, (), (0, 1)), (3, (0,), (1,)), (8, (0, 1), ())])
def test_costs_that_add_up_are_settled(difference, charged, not_charged):
    finding = judge(difference * MICRO, [Doubt(0, 3 * MICRO), Doubt(1, 5 * MICRO)])

    assert (finding.verdict, finding.charged, finding.not_charged) == (Verdict.SETTLED, charged, not_charged)


def test_equal_costs_of_which_some_were_charged_stay_in_doubt_with_their_number():
    finding = judge(6 * MICRO, [Doubt(number, 3 * MICRO) for number in range(5)])

    assert (finding.verdict, finding.most_charged) == (Verdict.AMBIGUOUS, 2)
    assert "10 ways" in finding.text


def test_a_cost_that_another_user_may_have_spent_stays_in_doubt():
    """5 credits are the second job, or the first and 2 of somebody else."""
    finding = judge(5 * MICRO, [Doubt(0, 3 * MICRO), Doubt(1, 5 * MICRO)])

    assert (finding.verdict, finding.most_charged) == (Verdict.AMBIGUOUS, 1)


def test_a_price_that_is_not_known_settles_only_that_nothing_was_charged():
    doubts = [Doubt(0, None), Doubt(1, 5 * MICRO)]

    assert judge(0, doubts).not_charged == (0, 1)
    assert judge(5 * MICRO, doubts).verdict is Verdict.AMBIGUOUS


def test_an_inexact_estimate_does_not_clear_a_dearer_doubt():
    doubts = [Doubt(0, 3 * MICRO, exact=False), Doubt(1, 5 * MICRO, exact=False)]

    assert judge(3 * MICRO, doubts).verdict is Verdict.AMBIGUOUS


def test_doubts_that_cost_as_much_as_a_top_up_stay_in_doubt():
    assert judge(0, [Doubt(0, LEAST_TOP_UP)]).verdict is Verdict.AMBIGUOUS


def test_ways_are_counted_and_too_many_sums_are_not():
    assert count_ways(6, [3, 3, 6]) == 2
    assert count_ways(2**20, [2**power for power in range(20)]) is None
    assert judge(2**19, [Doubt(power, 2**power) for power in range(20)]).text.count("more than") == 1
