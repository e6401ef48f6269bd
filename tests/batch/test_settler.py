"""The balance as a witness of a run: what was lost and charged, what was not, and what stays in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from fluxwerk.batch import plan
from fluxwerk.batch.run import OnDoubt, RunOptions
from fluxwerk.errors import InDoubtError, NoResponseError
from fluxwerk.ledger.failure import FailureKind
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.protocol import wire
from fluxwerk.protocol.witness import Verdict
from fluxwerk.types import HttpRequest, Response
from support import judge
from support.site import Site, honest

ALONE = RunOptions(lease=1.0, first_pause=0.01, exclusive=True, witness_after=0.0, steady=0.0)
Answer = Callable[[], Response]


def losing(taken: set[str], untaken: Iterable[str] = ()) -> Callable[[HttpRequest, Answer], Response]:
    """Lose the first answer for each of these prompts; the service has taken some of the submits, not the others."""
    left = taken | set(untaken)

    def intercept(request: HttpRequest, answer: Answer) -> Response:
        prompt = next((prompt for prompt in left if f'"{prompt}"'.encode() in request.body), None)
        if request.method != "POST" or prompt is None:
            return answer()
        left.remove(prompt)
        if prompt in taken:
            answer()
        raise NoResponseError("cut off")

    return intercept


def images(*numbers: int) -> set[str]:
    return {f"image {number}" for number in numbers}


def lost(ledger: Ledger) -> set[str]:
    return {
        Ledger.job_fields(row)["prompt"] for row in ledger.rows(Stage.FAILED) if row["kind"] == FailureKind.IN_DOUBT
    }


def assert_books_agree(site: Site) -> None:
    sums = site.ledger.budget.sums()
    assert sums.spent == judge.charged(site.accepted)
    assert sums.doubtful == 0


def test_a_submit_that_was_not_charged_is_made_by_itself(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(set(), images(2))

    assert site.run(ALONE) == ""

    assert (site.count(Stage.SAVED), len(site.accepted)) == (5, 5)
    assert_books_agree(site)


def test_an_image_that_was_charged_is_listed_as_lost_and_not_bought_again(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(images(2))

    site.run(ALONE)

    assert (site.count(Stage.SAVED), len(site.accepted)) == (4, 5)
    assert lost(site.ledger) == images(2)
    assert_books_agree(site)


def test_a_lost_image_is_bought_anew_within_the_allowance(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(images(2))

    site.run(replace(ALONE, rebuy=1))

    assert (site.count(Stage.SAVED), len(site.accepted)) == (5, 6)
    assert_books_agree(site)


@pytest.mark.parametrize("taken", [set(), images(0, 1, 2, 3, 4)])
def test_five_doubts_at_once_of_which_none_or_all_were_charged_are_settled(tmp_path: Path, taken: set[str]):
    site = Site(tmp_path, 5)
    site.intercept = losing(taken, images(0, 1, 2, 3, 4) - taken)

    site.run(ALONE)

    assert (site.count(Stage.DOUBTFUL), len(site.accepted)) == (0, 5)
    assert lost(site.ledger) == taken
    assert_books_agree(site)


def test_costs_that_add_up_in_one_way_are_settled(tmp_path: Path):
    site = Site(tmp_path)
    plan(site.ledger, [{"prompt": "image 0", "width": 64, "height": 64}, {"prompt": "image 1", "model": "flux-2-max"}])
    site.intercept = losing(images(0), images(1))

    site.run(ALONE)

    assert lost(site.ledger) == images(0)
    assert (site.count(Stage.SAVED), len(site.accepted)) == (1, 2)
    assert_books_agree(site)


def test_which_of_two_equal_images_was_charged_stays_in_doubt_and_says_why(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(images(1), images(2))

    site.run(ALONE)

    assert judge.prompts(site.ledger, Stage.DOUBTFUL) == images(1, 2)
    [evidence] = site.ledger.doubts.evidence(2)
    assert evidence["verdict"] == Verdict.AMBIGUOUS
    assert "2 ways" in evidence["text"]


def test_an_allowance_settles_equal_images_of_which_one_was_charged(tmp_path: Path):
    """Both are made again, and the one image that is bought twice is known to be."""
    site = Site(tmp_path, 5)
    site.intercept = losing(images(1), images(2))
    site.run(ALONE)
    site.intercept = honest

    site.run(replace(ALONE, rebuy=1))

    assert (site.count(Stage.SAVED), len(site.accepted)) == (5, 6)
    assert_books_agree(site)


def spending(site: Site, amount: Decimal, taken: set[str], untaken: Iterable[str] = ()) -> None:
    """Lose answers, and let the balance fall by what somebody else spends, once the first image was asked for."""
    lose, told = losing(taken, untaken), list[bool]()

    def intercept(request: HttpRequest, answer: Answer) -> Response:
        if request.method == "POST":
            told.append(True)
        elif "credits" in request.url and told:
            return wire.write_credits(wire.read_credits(answer()) - amount)
        return lose(request, answer)

    site.intercept = intercept


def test_another_user_of_the_account_is_noticed(tmp_path: Path):
    site = Site(tmp_path, 5)
    spending(site, Decimal("1.5"), set(), images(2))

    site.run(ALONE)

    assert site.count(Stage.DOUBTFUL) == 1
    assert site.ledger.doubts.evidence(3)[0]["verdict"] == Verdict.UNEXPLAINED


def test_a_top_up_in_between_leaves_the_doubt(tmp_path: Path):
    site = Site(tmp_path, 5)
    spending(site, Decimal(-1000), images(2))

    site.run(ALONE)

    assert site.count(Stage.DOUBTFUL) == 1
    assert "topped up" in site.ledger.doubts.evidence(3)[0]["text"]


def test_without_the_promise_to_be_alone_no_balance_settles(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(set(), images(2))

    site.run(replace(ALONE, exclusive=False))

    assert site.count(Stage.DOUBTFUL) == 1


def test_a_doubt_of_an_earlier_run_is_settled_before_the_first_submit(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(set(), images(0, 1))
    with pytest.raises(InDoubtError):
        site.run(replace(ALONE, on_doubt=OnDoubt.STOP, concurrency=1))
    assert site.count(Stage.SAVED) == 0
    site.intercept = honest

    assert site.run(ALONE) == ""

    assert (site.count(Stage.SAVED), len(site.accepted)) == (5, 5)
    assert_books_agree(site)


def test_a_doubt_settled_by_hand_makes_the_rest_clear(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(images(1), images(2))
    site.run(ALONE)
    site.ledger.settle_charged(2)
    site.intercept = honest

    site.run(ALONE)

    assert (site.count(Stage.SAVED), len(site.accepted)) == (4, 5)
    assert_books_agree(site)


def test_an_old_doubt_settled_by_hand_later_does_not_spoil_the_arithmetic(tmp_path: Path):
    """It was in doubt while a balance was read, so an earlier balance is compared."""
    site = Site(tmp_path, 5)
    site.intercept = losing(images(1), images(2))
    site.run(replace(ALONE, exclusive=False))
    site.run(ALONE)
    assert site.count(Stage.DOUBTFUL) == 2, "these began before any balance was read"
    site.ledger.settle_charged(2)
    plan(site.ledger, [{"prompt": "image 9", "width": 64, "height": 64}])
    site.intercept = losing(set(), images(9))

    site.run(ALONE)

    assert judge.prompts(site.ledger, Stage.SAVED) >= images(9)
    assert site.count(Stage.DOUBTFUL) == 1


def test_what_was_read_of_another_account_is_no_evidence(tmp_path: Path):
    site = Site(tmp_path, 2)
    site.ledger.doubts.use_account("one")
    site.run(ALONE)
    plan(site.ledger, [{"prompt": "image 9", "width": 64, "height": 64}])
    site.intercept = losing(set(), images(9))
    site.run(replace(ALONE, exclusive=False))
    site.ledger.doubts.use_account("another")
    site.intercept = honest

    site.run(ALONE)

    assert site.count(Stage.DOUBTFUL) == 1


def test_on_doubt_stop_submits_nothing_more(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(set(), images(0))

    with pytest.raises(InDoubtError):
        site.run(RunOptions(lease=1.0, concurrency=1, on_doubt=OnDoubt.STOP))

    assert (site.count(Stage.DOUBTFUL), site.count(Stage.PLANNED)) == (1, 4)


def test_on_doubt_resubmit_makes_every_image_and_may_pay_twice(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(images(1), images(2))

    assert site.run(RunOptions(lease=1.0, on_doubt=OnDoubt.RESUBMIT)) == ""

    assert (site.count(Stage.SAVED), len(site.accepted)) == (5, 6)


def test_on_doubt_ask_leaves_even_what_a_balance_would_settle(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = losing(set(), images(2))

    site.run(replace(ALONE, on_doubt=OnDoubt.ASK))

    assert site.count(Stage.DOUBTFUL) == 1


def test_while_one_process_reads_the_balance_no_other_submits(tmp_path: Path):
    site = Site(tmp_path, 2)
    other = site.ledger.leases.register()
    assert site.ledger.doubts.hold(other, 30.0)

    assert site.ledger.submitting(site.ledger.leases.register(), 5, "base").jobs == ()

    site.ledger.doubts.release(other)
    assert len(site.ledger.submitting(other, 5, "base").jobs) == 2


def test_a_balance_that_cannot_be_read_leaves_the_doubt_and_ends_the_run(tmp_path: Path):
    site = Site(tmp_path, 2)
    lose = losing(set(), images(1))
    site.intercept = lambda request, answer: Response(403) if "credits" in request.url else lose(request, answer)

    site.run(ALONE)

    assert (site.count(Stage.SAVED), site.count(Stage.DOUBTFUL)) == (1, 1)
    assert "unsettled" in site.kinds()
