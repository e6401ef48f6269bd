"""A client whose account nobody else uses: its balance settles what is in doubt."""

from __future__ import annotations

import asyncio
import pickle
import threading

import pytest

from fluxwerk import AsyncClient, Client
from fluxwerk.client.books import Books
from fluxwerk.drive import run
from fluxwerk.errors import (
    InDoubtError,
    InsufficientCreditsError,
    InvalidUsageError,
    NoResponseError,
    TaskTimeoutError,
)
from fluxwerk.protocol import wire
from fluxwerk.testing import FaceToFace
from fluxwerk.types import Task

LOST = NoResponseError("cut off")


class Losing:
    """A client with an exclusive account, of whose submits some are lost: taken by the service, or not."""

    def __init__(self, *, taken=0, untaken=0, spent_by_another=0, account="exclusive", **settings):
        self.untaken, self.taken, self.spent_by_another = untaken, taken, spent_by_another
        self.pair = FaceToFace(account=account, intercept=self.answer, **settings)
        send = self.pair._transport.send

        def sending(access, request, budget):
            if request.method == "POST" and self.untaken:
                self.untaken -= 1
                raise LOST
            return send(access, request, budget)

        self.pair._transport.send = sending

    def answer(self, http, response):
        if http.method == "POST" and self.taken:
            self.taken -= 1
            raise LOST
        if http.url.endswith("/credits") and self.spent_by_another and self.images:
            return wire.write_credits(wire.read_credits(response) - self.spent_by_another)
        return response

    @property
    def images(self):
        return len(self.pair.state.tasks.all(self.pair.clock.now()))

    def generate(self, **wanted):
        return self.pair.generate("a fox", width=64, height=64, **wanted)


def test_a_submit_that_was_not_charged_is_submitted_again_within_the_deadline():
    losing = Losing(untaken=1)

    assert losing.generate().width == 64
    assert losing.images == 1
    assert any("not charged" in event.reason for event in losing.pair.events)


def test_a_submit_that_was_charged_is_told_as_charged_and_not_repeated():
    losing = Losing(taken=1)

    with pytest.raises(InDoubtError, match="It was charged, as the balance proves"):
        losing.generate()

    assert losing.images == 1


def test_several_losses_in_a_row_are_settled_one_after_the_other():
    losing = Losing(untaken=3)

    assert losing.generate().width == 64
    assert losing.images == 1


def test_another_user_of_the_account_leaves_the_doubt_with_the_arithmetic():
    losing = Losing(taken=1, spent_by_another=1)

    with pytest.raises(InDoubtError, match="somebody else uses the account"):
        losing.generate()


def test_a_deadline_that_is_too_short_for_evidence_leaves_the_doubt():
    losing = Losing(untaken=1)

    with pytest.raises(InDoubtError, match="could not be read"):
        losing.generate(timeout=30)


def test_a_shared_account_proves_nothing():
    losing = Losing(untaken=1, account="shared")

    with pytest.raises(InDoubtError) as caught:
        losing.generate()

    assert losing.pair.settle(caught.value).charged is None


def test_settle_says_later_what_became_of_a_doubt():
    losing = Losing(untaken=1)
    with pytest.raises(InDoubtError) as caught:
        losing.generate(timeout=30)

    assert losing.pair.settle(caught.value).charged is False


def test_settle_finds_the_task_where_the_server_keeps_keys():
    losing = Losing(taken=99, keeps_keys=True, account="shared")
    with pytest.raises(InDoubtError) as caught:
        losing.generate()
    losing.taken = 0

    settled = losing.pair.settle(caught.value)

    assert settled.task
    assert losing.pair.download(settled.task).width == 64
    assert losing.images == 1


def test_settle_hears_that_a_server_which_keeps_keys_did_not_take_it():
    losing = Losing(untaken=99, keeps_keys=True, account="shared")
    with pytest.raises(InDoubtError) as caught:
        losing.generate()
    losing.untaken = 0
    losing.pair.router.state.accounts._grants = lambda _: 0

    assert losing.pair.settle(caught.value).charged is False


def test_the_costs_of_earlier_images_are_known_and_do_not_disturb():
    losing = Losing()
    for _ in range(3):
        losing.generate()
    losing.untaken = 1

    assert losing.generate().width == 64


def test_a_task_that_was_left_in_flight_makes_the_balance_no_witness():
    losing = Losing()
    losing.pair.submit("a bear", width=64, height=64)
    losing.untaken = 1

    with pytest.raises(InDoubtError):
        losing.generate()


def test_a_cost_that_nobody_names_makes_the_balance_no_witness():
    books = Books()
    books.open(100)
    books.begin()
    books.accept(Task("a", ""))
    books.end(Task("a", ""), None)

    assert not books.is_open


def test_many_images_side_by_side_settle_their_doubts_at_the_end():
    losing = Losing(untaken=2)

    results = list(losing.pair.generate_many([f"fox {n}" for n in range(5)], width=64, height=64))

    assert all(result.image for result in results)
    assert losing.images == 5


def test_an_account_is_shared_or_exclusive():
    with pytest.raises(InvalidUsageError, match="shared, exclusive"):
        Client("a-key", account="mine")


def test_a_doubt_keeps_its_evidence_when_it_crosses_to_another_process():
    losing = Losing(untaken=1, account="shared")
    with pytest.raises(InDoubtError) as caught:
        losing.generate()

    again = pickle.loads(pickle.dumps(caught.value))

    assert (again.key, again.base, again.request) == (caught.value.key, caught.value.base, caught.value.request)


def test_the_asyncio_client_settles_too():
    pair = FaceToFace()

    class Transport:
        async def send(self, access, request, budget):
            return pair._transport.send(access, request, budget)

        async def close(self):
            pass

    async def settle():
        async with AsyncClient(
            "a-key", base_url=pair.access.base, transport=Transport(), clock=pair.clock, account="exclusive"
        ) as client:
            return await client.settle(InDoubtError("lost"))

    assert asyncio.run(settle()).charged is None


def test_books_are_safe_to_share_between_threads():
    books = Books()
    books.open(1000)

    def work():
        for number in range(200):
            task = Task(f"{threading.get_ident()}-{number}", "")
            books.begin()
            books.accept(task)
            books.end(task, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert books.is_quiet
    assert books.weigh(200, books.moved).difference == 0


def test_on_doubt_stop_raises_at_once_and_settle_decides_later():
    losing = Losing(untaken=1, on_doubt="stop")
    began = losing.pair.clock.now()
    with pytest.raises(InDoubtError) as caught:
        losing.generate()

    assert losing.pair.clock.now() - began < 30
    assert losing.images == 0
    assert losing.pair.settle(caught.value).charged is False


def test_on_doubt_stop_lets_many_submit_nothing_more():
    losing = Losing(untaken=1, account="shared", on_doubt="stop", slots=1)

    errors = [result.error for result in losing.pair.generate_many(["a fox"] * 5, width=64, height=64)]

    assert [type(error) for error in errors] == [InDoubtError] + [TaskTimeoutError] * 4
    assert "on_doubt is 'stop'" in str(errors[1])
    assert losing.images == 0


def test_without_on_doubt_stop_many_go_on_after_a_doubt():
    losing = Losing(untaken=1, account="shared", slots=1)

    results = list(losing.pair.generate_many(["a fox"] * 5, width=64, height=64))

    assert sorted(type(result.error).__name__ for result in results) == ["InDoubtError"] + ["NoneType"] * 4


@pytest.mark.parametrize("account", ["shared", "exclusive"])
@pytest.mark.parametrize(("lost", "images"), [("untaken", 1), ("taken", 2)])
def test_on_doubt_resubmit_makes_the_image_and_may_pay_twice(account, lost, images):
    losing = Losing(**{lost: 1}, account=account, on_doubt="resubmit")

    assert losing.generate().width == 64
    assert losing.images == images
    assert any("both may be charged" in event.reason for event in losing.pair.events)


def test_on_doubt_resubmit_pays_once_where_the_server_keeps_keys():
    losing = Losing(taken=1, keeps_keys=True, account="shared", on_doubt="resubmit")

    losing.generate()

    assert losing.images == 1


def test_on_doubt_resubmit_submits_again_only_once():
    losing = Losing(taken=99, account="shared", on_doubt="resubmit")

    with pytest.raises(InDoubtError, match="once more, as on_doubt='resubmit' asks, and that failed too") as caught:
        losing.generate()

    assert losing.images == 2
    assert str(caught.value).count("It was not repeated") == 1


class Unread:
    """The switch of many whose results are no longer read once a submit of theirs was lost."""

    may_send = True
    reason = "The results are no longer read."

    def __init__(self, losing):
        self._losing = losing

    @property
    def may_buy(self):
        return self._losing.taken + self._losing.untaken > 0


@pytest.mark.parametrize(
    ("settings", "error", "images"),
    [
        ({"taken": 1, "account": "shared", "on_doubt": "resubmit"}, InDoubtError, 1),
        ({"untaken": 1}, TaskTimeoutError, 0),
    ],
    ids=["resubmit", "settled"],
)
def test_what_is_no_longer_read_is_not_submitted_again(settings, error, images):
    losing = Losing(**settings)
    pair = losing.pair
    session = pair._session(switch=Unread(losing))
    steps = session.steps(pair._generating(session, "a fox", {"width": 64, "height": 64}), None)
    with pytest.raises(error), session:
        run(steps, pair.send, pair.clock)

    assert losing.images == images


def test_a_refusal_of_the_second_submit_does_not_hide_the_doubt_of_the_first():
    losing = Losing(untaken=1, account="shared", on_doubt="resubmit")
    losing.pair.router.state.accounts._grants = lambda _: 0

    with pytest.raises(InDoubtError) as caught:
        losing.generate()

    assert isinstance(caught.value.__cause__, InsufficientCreditsError)


def test_nothing_is_resubmitted_unless_it_is_asked_for():
    losing = Losing(untaken=1, account="shared")

    with pytest.raises(InDoubtError):
        losing.generate()

    assert losing.images == 0


def test_on_doubt_is_stop_settle_or_resubmit():
    with pytest.raises(InvalidUsageError, match="stop, settle, resubmit"):
        Client("a-key", on_doubt="ask")
