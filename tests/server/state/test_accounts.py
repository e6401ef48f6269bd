"""Accounts, slots and charges, without HTTP."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import Task, get_model
from fluxwerk.engines import Order
from fluxwerk.server.state.accounts import KEEP, LONGEST_KEY, Account, Accounts, MemoryStore, TaskRecord, is_well_formed
from fluxwerk.types import Response
from support.asking import face, post


def job(account: Account, name: str = "1", model: str = "flux-2-pro", cost: str | None = "3") -> TaskRecord:
    task = Task(name, "", model, None if cost is None else Decimal(cost))
    return TaskRecord(
        task, account, get_model(model), Order(model, "", 0, 64, 64), accepted=0.0, folder=f"folder {name}"
    )


def test_without_keys_every_key_opens_its_own_account():
    books = Accounts(credit=Decimal(5))
    assert books.account("one") is books.account("one")
    assert books.account("one") is not books.account("two")
    assert books.account("one").credits == 5


def test_with_keys_only_these_have_accounts():
    books = Accounts(["one"])
    assert books.account("one") is not None
    assert books.account("two") is None


def test_a_key_is_not_kept():
    books = Accounts(["CANARY"])
    account = books.account("CANARY")
    assert "CANARY" not in repr(account) + repr(vars(books)) + account.digest


def test_slots_are_counted_per_account_and_per_pool():
    books = Accounts()
    mine, other = books.account("mine"), books.account("other")
    for n in range(6):
        assert books.has_slot(mine, get_model("flux-kontext-max"), 0.0)
        books.accept(job(mine, str(n), "flux-kontext-max"))
    assert not books.has_slot(mine, get_model("flux-kontext-max"), 0.0)
    assert books.has_slot(mine, get_model("flux-kontext-pro"), 0.0)
    assert books.has_slot(other, get_model("flux-kontext-max"), 0.0)


def test_a_full_pool_leaves_the_other_pools_alone():
    books = Accounts()
    account = books.account("key")
    for n in range(24):
        books.accept(job(account, str(n)))
    assert not books.has_slot(account, get_model("flux-2-max"), 0.0)
    assert books.has_slot(account, get_model("flux-kontext-max"), 0.0)


def test_a_submit_that_is_being_read_holds_a_slot_until_it_is_booked_or_refused():
    books = Accounts()
    account, model = books.account("key"), get_model("flux-kontext-max")
    with books.hold(account, model):
        assert books.free(account, model, 0.0) == 5
        books.accept(job(account, "1", "flux-kontext-max"))
        assert books.free(account, model, 0.0) == 4
        assert books.free(account, get_model("flux-2-pro"), 0.0) == 24
    assert books.free(account, model, 0.0) == 5


def test_strangers_are_forgotten_and_who_has_tasks_or_came_last_is_not():
    books = Accounts(remembered=3)
    busy, reading = books.account("busy"), books.account("reading")
    books.accept(job(busy))
    books.finish(next(iter(busy.in_flight.values())), b"picture", 0.0)
    with books.hold(reading, get_model("flux-2-pro")):
        for n in range(100):
            books.account(f"stranger-{n}")
        assert books.known("busy") is busy
        assert books.known("reading") is reading
        assert books.known("stranger-99") is not None
        assert len(books._accounts) == 3
    books.forget(KEEP)
    for n in range(3):
        books.account(f"stranger-{n}")
    assert books.known("busy") is None
    assert len(books._accounts) == 3


def test_where_keys_are_given_nothing_spent_is_ever_forgotten():
    books = Accounts(["one", "two"], Decimal(10), remembered=1)
    one = job(books.account("one"))
    books.accept(one)
    books.finish(one, b"picture", 0.0)
    books.forget(KEEP)
    books.account("two")
    assert books.account("one").credits == 7


class Full(MemoryStore):
    """A disk that takes nothing after the first job was accepted."""

    def save(self, saved: TaskRecord) -> None:
        if saved.ready_at is not None:
            raise OSError(28, "no space left")


@pytest.mark.parametrize("prompt", ["x", "fluxwerk:error"])
def test_an_ending_that_no_disk_takes_is_told_all_the_same(prompt):
    told: list[str] = []
    of = face(
        books=Accounts(store=Full()), receiver=lambda got: told.append(json.loads(got.body)["id"]) or Response(204)
    )
    with pytest.raises(OSError, match="no space left"):
        post(of, {"prompt": prompt, "webhook_url": "https://me.example/hook"})
    with pytest.raises(OSError, match="no space left"):
        of.settle()
    assert told == list(of.state.accounts.jobs)


def test_a_finished_job_holds_its_slot_until_its_ending_may_be_shown():
    books = Accounts()
    account = books.account("key")
    jobs = [job(account, str(n)) for n in range(24)]
    for one in jobs:
        books.accept(one)
    books.finish(jobs[0], b"picture", ready_at=10.0)
    assert not books.has_slot(account, get_model("flux-2-pro"), 9.999)
    assert books.has_slot(account, get_model("flux-2-pro"), 10.0)


def test_a_failed_job_gives_its_credits_back_and_a_free_one_changes_nothing():
    books = Accounts(credit=Decimal(10))
    account = books.account("key")
    for cost, left in (("3", 7), (None, 10)):
        one = job(account, cost=cost)
        books.accept(one)
        assert account.credits == left
        books.fail(one, "broken", 1.0)
        assert account.credits == 10
    assert (one.word, one.details, one.has_ended(1.0)) == ("Error", "broken", True)


def test_an_image_is_forgotten_an_hour_after_its_end_and_not_before():
    books = Accounts()
    one, running = job(books.account("key")), job(books.account("key"), "2")
    books.accept(one)
    books.accept(running)
    books.finish(one, b"picture", 10.0)
    books.forget(10.0 + KEEP - 0.001)
    assert set(books.jobs) == {"1", "2"}
    books.forget(10.0 + KEEP)
    assert set(books.jobs) == {"2"}
    assert set(books.by_folder) == {"folder 2"}


@given(st.lists(st.tuples(st.booleans(), st.decimals(0, 9, places=2)), max_size=20))
def test_the_balance_is_what_was_there_less_what_was_not_returned(jobs):
    books = Accounts(credit=Decimal(1000))
    account = books.account("key")
    for n, (fails, cost) in enumerate(jobs):
        one = job(account, str(n), cost=str(cost))
        books.accept(one)
        if fails:
            books.fail(one, None, 0.0)
        else:
            books.finish(one, b"", 0.0)
    assert account.credits == 1000 - sum((cost for fails, cost in jobs if not fails), Decimal(0))


@given(st.text(max_size=20))
def test_a_key_is_well_formed_when_it_is_printable_ascii_without_white_space(key):
    assert is_well_formed(key) == (key != "" and all("!" <= letter <= "~" for letter in key))


def test_a_key_may_be_long_but_not_endless():
    assert is_well_formed("k" * LONGEST_KEY)
    assert not is_well_formed("k" * (LONGEST_KEY + 1))
