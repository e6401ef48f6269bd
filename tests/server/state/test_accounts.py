"""Accounts, slots and charges, without HTTP."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import Task, get_model
from fluxwerk.engines import Order
from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.accounts import LONGEST_KEY, Accounts, is_well_formed
from fluxwerk.server.state.charges import CreditsSpentError
from fluxwerk.server.state.queue import SlotsTakenError
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.state.tasks import KEEP


def job(account: Account, name: str = "1", model: str = "flux-2-pro", cost: str | None = "3") -> TaskRecord:
    task = Task(name, "", model, None if cost is None else Decimal(cost))
    return TaskRecord(
        task, account.id, get_model(model), Order(model, "", 0, 64, 64), accepted=0.0, folder=f"folder {name}"
    )


def accept(accounts: Accounts, key: str = "key", name: str = "1", model: str = "flux-2-pro", cost: str | None = "3"):
    account = accounts.account(key)
    one = job(account, name, model, cost)
    accounts.tasks.accept(one, account)
    return one


def finish(accounts: Accounts, one: TaskRecord, ready_at: float = 0.0) -> bool:
    return accounts.tasks.finish(one, "images/x.png", 7, ready_at, ready_at)


def test_without_keys_every_key_opens_its_own_account():
    accounts = Accounts(credit=Decimal(5))
    accept(accounts, "one")
    assert (accounts.account("one").credits, accounts.account("two").credits) == (2, 5)


def test_with_keys_only_these_have_accounts():
    accounts = Accounts(["one"])
    assert accounts.account("one") is not None
    assert accounts.account("two") is None


def test_a_key_is_not_kept():
    accounts = Accounts(["CANARY"])
    account = accounts.account("CANARY")
    assert "CANARY" not in repr(account) + repr(vars(accounts)) + account.id


def test_an_account_that_was_only_looked_at_has_no_row():
    accounts = Accounts()
    for n in range(100):
        accounts.account(f"stranger-{n}")
    assert accounts.store.database.ask("select id from account") == []


def test_slots_are_counted_per_account_and_per_pool():
    accounts = Accounts()
    mine, other = accounts.account("mine"), accounts.account("other")
    for n in range(6):
        assert accounts.has_slot(mine, get_model("flux-kontext-max"), 0.0)
        accept(accounts, "mine", str(n), "flux-kontext-max")
    assert not accounts.has_slot(mine, get_model("flux-kontext-max"), 0.0)
    assert accounts.has_slot(mine, get_model("flux-kontext-pro"), 0.0)
    assert accounts.has_slot(other, get_model("flux-kontext-max"), 0.0)


def test_a_task_without_a_free_slot_is_neither_there_nor_charged():
    accounts = Accounts()
    for n in range(6):
        accept(accounts, name=str(n), model="flux-kontext-max", cost="8")
    with pytest.raises(SlotsTakenError):
        accept(accounts, name="7", model="flux-kontext-max", cost="8")
    assert accounts.tasks.find("7", 0.0) is None
    assert accounts.account("key").spent == 48


def test_a_task_that_costs_more_than_is_left_is_neither_there_nor_charged():
    accounts = Accounts(credit=Decimal(5))
    accept(accounts)
    with pytest.raises(CreditsSpentError) as caught:
        accept(accounts, name="2")
    assert caught.value.left == 2
    assert accounts.tasks.find("2", 0.0) is None
    assert accounts.account("key").credits == 2


def test_a_full_pool_leaves_the_other_pools_alone():
    accounts = Accounts()
    account = accounts.account("key")
    for n in range(24):
        accept(accounts, name=str(n))
    assert not accounts.has_slot(account, get_model("flux-2-max"), 0.0)
    assert accounts.has_slot(account, get_model("flux-kontext-max"), 0.0)


def test_a_submit_being_read_holds_a_slot():
    """A submit that is being read holds a slot until it is booked or refused."""
    accounts = Accounts()
    account, model = accounts.account("key"), get_model("flux-kontext-max")
    with accounts.hold(account, model):
        assert accounts.free(account, model, 0.0) == 5
        accept(accounts, model="flux-kontext-max")
        assert accounts.free(account, model, 0.0) == 4
        assert accounts.free(account, get_model("flux-2-pro"), 0.0) == 24
    assert accounts.free(account, model, 0.0) == 5


def test_what_was_spent_is_never_forgotten():
    accounts = Accounts(["one", "two"], Decimal(10))
    finish(accounts, accept(accounts, "one"))
    accounts.tasks.forget(KEEP)
    assert accounts.tasks.all(0.0) == []
    assert accounts.account("one").credits == 7


def test_a_finished_job_holds_its_slot_until_its_ending_may_be_shown():
    accounts = Accounts()
    account = accounts.account("key")
    jobs = [accept(accounts, name=str(n)) for n in range(24)]
    finish(accounts, jobs[0], ready_at=10.0)
    assert not accounts.has_slot(account, get_model("flux-2-pro"), 9.999)
    assert accounts.has_slot(account, get_model("flux-2-pro"), 10.0)


def test_a_failed_task_returns_its_credits():
    """A failed job gives its credits back and a free one changes nothing."""
    accounts = Accounts(credit=Decimal(10))
    for name, cost, left in (("1", "3", 7), ("2", None, 10)):
        one = accept(accounts, name=name, cost=cost)
        assert accounts.account("key").credits == left
        assert accounts.tasks.end(one, Ending("Error", "broken"), 1.0, 1.0)
        assert accounts.account("key").credits == 10
        found = accounts.tasks.find(name, 1.0)
        assert (found.word, found.details, found.has_ended(1.0)) == ("Error", "broken", True)


def test_an_image_is_forgotten_an_hour_after_its_end_and_not_before():
    accounts = Accounts()
    one = accept(accounts)
    accept(accounts, name="2")
    finish(accounts, one, 10.0)
    accounts.tasks.forget(10.0 + KEEP - 0.001)
    assert [job.task.id for job in accounts.tasks.all(0.0)] == ["1", "2"]
    assert accounts.tasks.find("1", 10.0 + KEEP) is None
    accounts.tasks.forget(10.0 + KEEP)
    assert [job.task.id for job in accounts.tasks.all(0.0)] == ["2"]
    assert accounts.tasks.find_folder("folder 1", 0.0) is None


@given(st.lists(st.tuples(st.booleans(), st.decimals(0, 9, places=6)), max_size=20))
def test_the_balance_is_what_was_there_less_what_was_not_returned(jobs):
    accounts = Accounts(credit=Decimal(1000))
    for n, (fails, cost) in enumerate(jobs):
        one = accept(accounts, name=str(n), cost=str(cost))
        assert accounts.tasks.end(one, Ending("Error"), 0.0, 0.0) if fails else finish(accounts, one)
    credits_left = accounts.account("key").credits
    assert credits_left == 1000 - sum((cost for fails, cost in jobs if not fails), Decimal(0))


@given(st.text(max_size=20))
def test_a_well_formed_key_is_printable_ascii_without_spaces(key):
    """A key is well formed when it is printable ascii without white space."""
    assert is_well_formed(key) == (key != "" and all("!" <= letter <= "~" for letter in key))


def test_a_key_may_be_long_but_not_endless():
    assert is_well_formed("k" * LONGEST_KEY)
    assert not is_well_formed("k" * (LONGEST_KEY + 1))
