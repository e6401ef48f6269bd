"""Applications and their keys in the database of a state."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from fluxwerk.errors import InvalidUsageError
from fluxwerk.server.state import keys
from fluxwerk.server.state.application import Application
from fluxwerk.server.state.applications import Applications
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.migrations import prepare
from fluxwerk.testing.clock import PretendClock

SHOP = Application(
    "shop", "", Decimal("20.5"), "month", 6, frozenset({"flux-2-pro", "flux-2-max"}), 5, 30, 1_000_000, 86_400.0
)


@pytest.fixture
def clock():
    return PretendClock()


@pytest.fixture
def applications(clock):
    database = StateFile()
    prepare(database)
    return Applications(database, clock.now, random.Random(0).randbytes)


def added(applications: Applications, wanted: Application = SHOP) -> str:
    key = keys.make()
    applications.add(wanted, keys.describe(key))
    return keys.describe(key).digest


def test_a_key_opens_its_application_with_all_that_it_may_use(applications, clock):
    digest = added(applications)
    found = applications.find(digest, clock.now())
    assert found == Application(**{**{name: getattr(SHOP, name) for name in SHOP.__slots__}, "account": found.account})
    assert found.account.startswith("app-")
    assert applications.find("another", clock.now()) is None


def test_two_applications_have_accounts_of_their_own(applications, clock):
    one, other = added(applications), added(applications, Application("blog"))
    assert applications.find(one, clock.now()).account != applications.find(other, clock.now()).account


def test_a_name_is_taken_until_its_application_is_revoked(applications, clock):
    first = added(applications)
    with pytest.raises(InvalidUsageError, match="is taken"):
        added(applications)
    applications.revoke("shop")
    assert applications.find(first, clock.now()) is None
    second = added(applications)
    assert applications.find(second, clock.now()) is not None
    assert [entry.revoked is None for entry in applications.entries()] == [False, True]


@pytest.mark.parametrize("name", ["", "a" * 65, "a/b", "a\n"])
def test_a_name_that_is_none_is_refused(applications, name):
    with pytest.raises(InvalidUsageError, match="must be 1 to 64"):
        added(applications, Application(name))


def test_both_keys_open_it_while_one_replaces_the_other(applications, clock):
    old, new = added(applications), keys.describe(keys.make())
    applications.rotate("shop", new, 60)
    assert applications.find(old, clock.now()) == applications.find(new.digest, clock.now()) is not None
    clock.jump_to(clock.now() + 61)
    assert applications.find(old, clock.now()) is None
    assert applications.find(new.digest, clock.now()) is not None


def test_a_second_rotation_does_not_lengthen_the_life_of_the_first_key(applications, clock):
    old = added(applications)
    applications.rotate("shop", keys.describe(keys.make()), 60)
    applications.rotate("shop", keys.describe(keys.make()), 6000)
    clock.jump_to(clock.now() + 61)
    assert applications.find(old, clock.now()) is None


def test_a_revoked_application_has_no_key(applications, clock):
    old, new = added(applications), keys.describe(keys.make())
    applications.rotate("shop", new, 60)
    applications.revoke("shop")
    assert [applications.find(digest, clock.now()) for digest in (old, new.digest)] == [None, None]
    assert applications.exist()


def test_what_is_changed_holds_at_once(applications, clock):
    digest = added(applications)
    applications.change("shop", budget=Decimal(50), slots=None)
    found = applications.find(digest, clock.now())
    assert (found.budget, found.slots, found.period) == (50, None, "month")


@pytest.mark.parametrize("act", ["revoke", "change"])
def test_an_unknown_name_is_refused_with_the_way_to_find_it(applications, act):
    with pytest.raises(InvalidUsageError, match="fluxwerk keys list"):
        getattr(applications, act)("shop")


def test_the_list_shows_of_each_key_its_end_alone(applications):
    key = keys.make()
    applications.add(SHOP, keys.describe(key))
    (entry,) = applications.entries()
    assert [shown.shown for shown in entry.keys] == [f"bfl_…{key[-4:]}"]
    assert key not in repr(entry)
