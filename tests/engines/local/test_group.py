"""Which samples step next: shapes share passes, prices follow the arithmetic, no sample waits for ever."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.engines import Order
from fluxwerk.engines.local.group import Groups, TurnQueue, price

KLEIN_4B = 3072
TEXT = 512
MEGAPIXEL = 4096


@dataclass
class Pretend:
    number: int
    key: str
    price: float = 1.0
    left: int = 4


def run(groups: Groups[Pretend], passes: int) -> list[list[int]]:
    """Let samples step, each until it has none left, and return the numbers of each pass."""
    log = []
    for _ in range(passes):
        batch = groups.pick()
        log.append([sample.number for sample in batch])
        for sample in batch:
            sample.left -= 1
            if not sample.left:
                groups.drop(sample.number)
    return log


def of(*samples: Pretend, budget: float = 100.0) -> Groups[Pretend]:
    groups: Groups[Pretend] = Groups(budget)
    for sample in samples:
        groups.add(sample)
    return groups


@pytest.mark.parametrize(("references", "times"), [(0, 1.0), (1, 2.20), (4, 7.59)])
def test_a_reference_makes_a_step_as_dear_as_its_arithmetic(references: int, times: float) -> None:
    plain = price(MEGAPIXEL + TEXT, KLEIN_4B)
    assert price(MEGAPIXEL * (1 + references) + TEXT, KLEIN_4B) / plain == pytest.approx(times, abs=0.01)


def test_drafts_of_one_shape_share_a_pass_whatever_step_each_is_at() -> None:
    groups = of(Pretend(1, "a"))
    run(groups, 2)
    groups.add(Pretend(2, "a"))
    assert run(groups, 4) == [[1, 2], [1, 2], [2], [2]]


def test_drafts_of_different_shapes_never_share_a_pass() -> None:
    assert all(len(batch) == 1 for batch in run(of(Pretend(1, "a"), Pretend(2, "b")), 8))


def test_the_budget_is_counted_in_price_and_not_in_images() -> None:
    assert run(of(*(Pretend(n, "a", price=3.0) for n in range(5)), budget=10.0), 1) == [[0, 1, 2]]


def test_a_draft_dearer_than_the_budget_goes_alone() -> None:
    assert run(of(Pretend(1, "a", price=50.0), Pretend(2, "a", price=50.0), budget=10.0), 1) == [[1]]


def test_equal_samples_that_fill_the_device_finish_in_turn() -> None:
    """Equal drafts that fill the device are finished one after the other."""
    log = run(of(Pretend(1, "a", price=9.0), Pretend(2, "a", price=9.0), budget=10.0), 8)
    assert log == [[1]] * 4 + [[2]] * 4


def test_a_dear_draft_does_not_starve_cheap_ones_that_come_later() -> None:
    groups = of(Pretend(0, "dear", price=40.0, left=50))
    run(groups, 10)
    groups.add(Pretend(1, "cheap", price=5.0, left=9))
    # Eight cheap steps cost as much as a dear one.
    assert run(groups, 10) == [[1]] * 8 + [[0]] + [[1]]


def test_cheap_drafts_that_keep_coming_do_not_starve_a_dear_one() -> None:
    groups = of(Pretend(0, "dear", price=40.0, left=1000))
    dear = 0
    for number in range(1, 200):
        groups.add(Pretend(number, "cheap", price=5.0, left=1))
        dear += run(groups, 1) == [[0]]
    assert dear >= 20


def test_a_limit_holds_for_its_group_alone() -> None:
    groups = of(*(Pretend(n, "a") for n in range(4)), *(Pretend(n, "b") for n in range(4, 8)))
    groups.limit("a", 2)
    assert sorted(map(len, run(groups, 2))) == [2, 4]


def test_without_samples_there_is_no_pass() -> None:
    assert of().pick() == []


DRAFTS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.5, 50), st.integers(1, 6)), min_size=1, max_size=12)


@given(DRAFTS, st.floats(1, 60))
def test_every_sample_is_finished_and_no_pass_exceeds_the_budget(
    samples: list[tuple[str, float, int]], budget: float
) -> None:
    prices = {key: cost for key, cost, _ in samples}
    groups = of(*(Pretend(n, key, prices[key], left) for n, (key, _, left) in enumerate(samples)), budget=budget)
    log = run(groups, sum(left for *_, left in samples))
    assert len(groups) == 0
    for batch in log:
        keys = {samples[number][0] for number in batch}
        assert len(keys) <= 1
        assert len(batch) <= 1 or prices[keys.pop()] * len(batch) <= budget * 1.000001


@given(DRAFTS)
def test_no_group_waits_longer_than_the_dearest_pass_of_every_other(samples: list[tuple[str, float, int]]) -> None:
    prices = {key: cost for key, cost, _ in samples}
    groups = of(*(Pretend(n, key, prices[key], 1000) for n, (key, _, _) in enumerate(samples)), budget=60.0)
    spent = dict.fromkeys(prices, 0.0)
    for batch in run(groups, 60):
        spent[samples[batch[0]][0]] += sum(prices[samples[number][0]] for number in batch)
        dearest = max(max(60.0, cost) for cost in prices.values())
        assert max(spent.values()) - min(spent.values()) <= dearest * 1.000001


def test_shapes_are_started_in_turn_and_the_oldest_order_of_each_first() -> None:
    line = TurnQueue()
    for number, width in enumerate([1024] * 4 + [64, 64, 512]):
        line.add(number, Order("flux-2-klein-4b", "x", 1, width, 64))
    assert [line.take()[0] for _ in range(3)] == [0, 4, 6]
    line.add(7, Order("flux-2-klein-4b", "x", 1, 256, 64))
    assert [line.take()[0] for _ in range(5)] == [1, 5, 7, 2, 3]
