"""Accounts, slots and charges, without HTTP."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import Task, get_model
from fluxwerk.engines import Order
from fluxwerk.errors import StorageError
from fluxwerk.server.state.accounts import KEEP, LONGEST_KEY, Account, Accounts, MemoryStore, TaskRecord, is_well_formed
from fluxwerk.types import Response
from support.asking import face, post


def job(account: Account, name: str = "1", model: str = "flux-2-pro", cost: str | None = "3") -> TaskRecord:
    task = Task(name, "", model, None if cost is None else Decimal(cost))
    return TaskRecord(
        task, account, get_model(model), Order(model, "", 0, 64, 64), accepted=0.0, folder=f"folder {name}"
    )


def test_without_keys_every_key_opens_its_own_account():
    accounts = Accounts(credit=Decimal(5))
    assert accounts.account("one") is accounts.account("one")
    assert accounts.account("one") is not accounts.account("two")
    assert accounts.account("one").credits == 5


def test_with_keys_only_these_have_accounts():
    accounts = Accounts(["one"])
    assert accounts.account("one") is not None
    assert accounts.account("two") is None


def test_a_key_is_not_kept():
    accounts = Accounts(["CANARY"])
    account = accounts.account("CANARY")
    assert "CANARY" not in repr(account) + repr(vars(accounts)) + account.digest


def test_slots_are_counted_per_account_and_per_pool():
    accounts = Accounts()
    mine, other = accounts.account("mine"), accounts.account("other")
    for n in range(6):
        assert accounts.has_slot(mine, get_model("flux-kontext-max"), 0.0)
        accounts.accept(job(mine, str(n), "flux-kontext-max"))
    assert not accounts.has_slot(mine, get_model("flux-kontext-max"), 0.0)
    assert accounts.has_slot(mine, get_model("flux-kontext-pro"), 0.0)
    assert accounts.has_slot(other, get_model("flux-kontext-max"), 0.0)


def test_a_full_pool_leaves_the_other_pools_alone():
    accounts = Accounts()
    account = accounts.account("key")
    for n in range(24):
        accounts.accept(job(account, str(n)))
    assert not accounts.has_slot(account, get_model("flux-2-max"), 0.0)
    assert accounts.has_slot(account, get_model("flux-kontext-max"), 0.0)


def test_a_submit_being_read_holds_a_slot():
    """A submit that is being read holds a slot until it is booked or refused."""
    accounts = Accounts()
    account, model = accounts.account("key"), get_model("flux-kontext-max")
    with accounts.hold(account, model):
        assert accounts.free(account, model, 0.0) == 5
        accounts.accept(job(account, "1", "flux-kontext-max"))
        assert accounts.free(account, model, 0.0) == 4
        assert accounts.free(account, get_model("flux-2-pro"), 0.0) == 24
    assert accounts.free(account, model, 0.0) == 5


def test_strangers_are_forgotten_and_who_has_tasks_or_came_last_is_not():
    accounts = Accounts(remembered=3)
    busy, reading = accounts.account("busy"), accounts.account("reading")
    accounts.accept(job(busy))
    accounts.finish(next(iter(busy.in_flight.values())), b"picture", 0.0)
    with accounts.hold(reading, get_model("flux-2-pro")):
        for n in range(100):
            accounts.account(f"stranger-{n}")
        assert accounts.known("busy") is busy
        assert accounts.known("reading") is reading
        assert accounts.known("stranger-99") is not None
        assert len(accounts._accounts) == 3
    accounts.forget(KEEP)
    for n in range(3):
        accounts.account(f"stranger-{n}")
    assert accounts.known("busy") is None
    assert len(accounts._accounts) == 3


def test_where_keys_are_given_nothing_spent_is_ever_forgotten():
    accounts = Accounts(["one", "two"], Decimal(10), remembered=1)
    one = job(accounts.account("one"))
    accounts.accept(one)
    accounts.finish(one, b"picture", 0.0)
    accounts.forget(KEEP)
    accounts.account("two")
    assert accounts.account("one").credits == 7


class Full(MemoryStore):
    """A disk that takes nothing after the first job was accepted."""

    def save(self, saved: TaskRecord) -> None:
        if saved.ready_at is not None:
            raise StorageError("no space left")


@pytest.mark.parametrize("prompt", ["x", "fluxwerk:error"])
def test_an_ending_that_no_disk_takes_is_told_all_the_same(prompt):
    told: list[str] = []
    of = face(
        accounts=Accounts(store=Full()), receiver=lambda got: told.append(json.loads(got.body)["id"]) or Response(204)
    )
    assert post(of, {"prompt": prompt, "webhook_url": "https://me.example/hook"}).status == 200
    of.settle()
    assert "no space left" in of.state.storage_error
    assert told == list(of.state.accounts.jobs)


def test_a_finished_job_holds_its_slot_until_its_ending_may_be_shown():
    accounts = Accounts()
    account = accounts.account("key")
    jobs = [job(account, str(n)) for n in range(24)]
    for one in jobs:
        accounts.accept(one)
    accounts.finish(jobs[0], b"picture", ready_at=10.0)
    assert not accounts.has_slot(account, get_model("flux-2-pro"), 9.999)
    assert accounts.has_slot(account, get_model("flux-2-pro"), 10.0)


def test_a_failed_task_returns_its_credits():
    """A failed job gives its credits back and a free one changes nothing."""
    accounts = Accounts(credit=Decimal(10))
    account = accounts.account("key")
    for cost, left in (("3", 7), (None, 10)):
        one = job(account, cost=cost)
        accounts.accept(one)
        assert account.credits == left
        accounts.fail(one, "broken", 1.0)
        assert account.credits == 10
    assert (one.word, one.details, one.has_ended(1.0)) == ("Error", "broken", True)


def test_an_image_is_forgotten_an_hour_after_its_end_and_not_before():
    accounts = Accounts()
    one, running = job(accounts.account("key")), job(accounts.account("key"), "2")
    accounts.accept(one)
    accounts.accept(running)
    accounts.finish(one, b"picture", 10.0)
    accounts.forget(10.0 + KEEP - 0.001)
    assert set(accounts.jobs) == {"1", "2"}
    accounts.forget(10.0 + KEEP)
    assert set(accounts.jobs) == {"2"}
    assert set(accounts.by_folder) == {"folder 2"}


@given(st.lists(st.tuples(st.booleans(), st.decimals(0, 9, places=2)), max_size=20))
def test_the_balance_is_what_was_there_less_what_was_not_returned(jobs):
    accounts = Accounts(credit=Decimal(1000))
    account = accounts.account("key")
    for n, (fails, cost) in enumerate(jobs):
        one = job(account, str(n), cost=str(cost))
        accounts.accept(one)
        if fails:
            accounts.fail(one, None, 0.0)
        else:
            accounts.finish(one, b"", 0.0)
    assert account.credits == 1000 - sum((cost for fails, cost in jobs if not fails), Decimal(0))


@given(st.text(max_size=20))
def test_a_well_formed_key_is_printable_ascii_without_spaces(key):
    """A key is well formed when it is printable ascii without white space."""
    assert is_well_formed(key) == (key != "" and all("!" <= letter <= "~" for letter in key))


def test_a_key_may_be_long_but_not_endless():
    assert is_well_formed("k" * LONGEST_KEY)
    assert not is_well_formed("k" * (LONGEST_KEY + 1))
