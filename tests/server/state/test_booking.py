"""How a submit is booked: its files first, then its row in one transaction, and what is left where that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import Task, get_model
from fluxwerk.engines import Order
from fluxwerk.errors import StorageError
from fluxwerk.ledger.database import Transaction, UnknownCommitError
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.application import Application, Period
from fluxwerk.server.state.booking import Booking, RepeatedSubmitError
from fluxwerk.server.state.charges import CreditsSpentError
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.outgoing import OutgoingWebhook
from fluxwerk.server.state.queue import Slots, SlotsTakenError
from fluxwerk.server.state.store import Store
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.state.tasks import Tasks
from fluxwerk.testing import FaceToFace
from support.asking import face, json_of, poll, post
from support.images import png, text

FOX = {"prompt": "a fox", "width": 64, "height": 64, "seed": 5}
EDIT = {**FOX, "input_image": text(png(64, 64))}


class ForgetfulFile(StateFile):
    """A database that is lost after a commit, before it can say so, while it `loses` and once it has `enough` tasks."""

    loses = False
    enough = 1
    depth = 0

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self.depth += 1
        try:
            with super().write() as transaction:
                yield transaction
        finally:
            self.depth -= 1
        if self.loses and not self.depth and len(self.ask("select id from task")) >= self.enough:
            raise UnknownCommitError("The database was lost during a commit.")


class WatchedStorage(MemoryStorage):
    """A storage that notes for each object whether others could write to the database meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.database: StateFile | None = None
        self.free: dict[str, bool] = {}

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        assert self.database
        writing = threading.Thread(target=self._write)
        writing.start()
        writing.join(2)
        self.free[name] = not writing.is_alive()
        return super().put(name, data, overwrite=overwrite)

    def _write(self) -> None:
        assert self.database
        with self.database.write():
            pass


class OpenStore(Store):
    """A store whose parts the test chooses; it has room for everything."""

    def excess(self) -> int:
        return 0


def over(database: StateFile, files: MemoryStorage, **how) -> FaceToFace:
    return face(accounts=Accounts(store=OpenStore(database, files)), **how)


def test_a_task_whose_commit_was_not_confirmed_keeps_its_inputs():
    database = ForgetfulFile()
    of = over(database, MemoryStorage())
    database.loses = True
    answer = post(of, EDIT)
    database.loses = False
    assert answer.status == 500
    assert "may or may not" in json_of(answer)["message"]

    of.state.resume()
    of.clock.sleep(1)
    (task,) = of.state.tasks.all(of.clock.now())
    assert task.word == "Ready"


def test_a_submit_whose_files_were_not_announced_for_certain_is_refused_and_nothing_is_there():
    database, files = ForgetfulFile(), MemoryStorage()
    database.enough = 0
    of = over(database, files)
    database.loses = True
    answer = post(of, EDIT)
    assert (answer.status, json_of(answer)["error"], files.held) == (503, "storage_unavailable", 0)


class KeepingStorage(MemoryStorage):
    """A storage that removes nothing while it is `stuck`."""

    stuck = False

    def remove(self, name: str) -> None:
        if self.stuck:
            raise StorageError("DELETE is refused")
        super().remove(name)


def test_a_task_is_accepted_though_its_inputs_cannot_be_removed(caplog):
    files = KeepingStorage()
    of = over(StateFile(), files, caches=True)
    poll(of, post(of, EDIT))
    files.stuck = True
    answered = post(of, EDIT)
    assert poll(of, answered)["result"]["cached"]
    of.clock.sleep(1)
    of.state.forget()
    assert "DELETE is refused" in caplog.text


def test_no_lock_waits_for_the_storage():
    database, files = StateFile(), WatchedStorage()
    files.database = database
    of = over(database, files, caches=True)
    poll(of, post(of, EDIT))
    files.free.clear()
    assert poll(of, post(of, EDIT))["result"]["cached"]
    assert files.free
    assert all(files.free.values())


class Wish(NamedTuple):
    """What a submit asks for."""

    who: str = "a"
    model: str = "flux-2-pro"
    has_webhook: bool = False
    key: str | None = None


def account(name: str, slots: int, priority: int, granted: int, period: Period) -> Account:
    application = Application(name, name, slots=slots, priority=priority, period=period)
    return Account(name, Decimal(granted), application=application)


ACCOUNTS = st.fixed_dictionaries(
    {
        name: st.builds(
            account,
            st.just(name),
            slots=st.sampled_from([1, 8]),
            priority=st.sampled_from([1, 2, 60]),
            granted=st.sampled_from([1, 3, 1000]),
            period=st.sampled_from(["total", "day"]),
        )
        for name in "abc"
    }
)
WISHES = st.lists(
    st.builds(
        Wish,
        st.sampled_from("abc"),
        st.sampled_from(["flux-2-pro", "flux-kontext-max"]),
        st.booleans(),
        st.sampled_from([None, None, None, "one", "two"]),
    ),
    max_size=8,
)


def bookings(accounts: dict[str, Account], wishes: Iterable[Wish], first: int = 0) -> list[Booking]:
    """Write tasks as submits do; `first` is the number in the name of the first."""
    made = []
    for number, wish in enumerate(wishes, first):
        task = Task(f"{wish.who}-{number}", "", wish.model, Decimal(1))
        order = Order(wish.model, "a fox", 0, 64, 64)
        job = TaskRecord(task, wish.who, get_model(wish.model), order, 5.0, folder=task.id)
        job.webhook = OutgoingWebhook("http://a.test/", None) if wish.has_webhook else None
        job.idempotency = (wish.key, "digest") if wish.key else None
        made.append(Booking(job, accounts[wish.who]))
    return made


def rows_of(store: Store) -> dict[str, list[tuple]]:
    tables = ("task", "account", "spend", "webhook")
    return {name: [tuple(row) for row in store.database.ask(f"select * from {name}")] for name in tables}


def book_each(tasks: Tasks, wanted: list[Booking]) -> list[Slots] | None:
    """Book one after the other in the order of their accounts and pools; `None` if one is refused."""
    slots = {}
    for one in sorted(wanted, key=lambda one: one.held):
        try:
            slots[one.job.task.id] = tasks.accept(*one)
        except (CreditsSpentError, SlotsTakenError, RepeatedSubmitError):
            return None
    return [slots[one.job.task.id] for one in wanted]


@given(ACCOUNTS, WISHES, WISHES)
def test_booking_together_comes_to_the_same_as_booking_one_after_the_other(accounts, earlier, wishes):
    each, together = Accounts(), Accounts()
    for number, wish in enumerate(earlier):
        for state in (each, together):
            book_each(state.tasks, bookings(accounts, [wish], number))
    before = rows_of(together.store)
    expected = book_each(each.tasks, bookings(accounts, wishes, 100))
    assert together.tasks.accept_all(bookings(accounts, wishes, 100)) == expected
    assert rows_of(together.store) == (before if expected is None else rows_of(each.store))


@pytest.mark.parametrize(
    ("refusing", "wish"),
    [
        (account("a", 8, 1, 1, "total"), Wish()),
        (account("a", 8, 1, 1, "day"), Wish()),
        (account("a", 1, 1, 8, "total"), Wish()),
        (account("a", 8, 1, 8, "total"), Wish(key="one")),
    ],
    ids=["credits", "credits for a day", "slots", "repeated"],
)
def test_where_one_task_would_be_refused_none_is_booked_together(refusing, wish):
    accounts = Accounts(queue=10)
    both = {"a": refusing, "b": account("b", 8, 1, 8, "total")}
    first = bookings(both, [Wish("b"), wish])
    assert accounts.tasks.accept_all([*first, *bookings(both, [wish], 2)]) is None
    assert not accounts.tasks.all(0.0)
    assert accounts.tasks.accept_all(first) is not None


def test_accounts_with_a_rate_are_booked_alone():
    accounts = Accounts()
    limited = Account("a", Decimal(8), application=Application("a", "a", rate=60))
    assert accounts.tasks.accept_all(bookings({"a": limited}, [Wish()])) is None
    assert not accounts.tasks.all(0.0)


def test_tasks_whose_commit_is_not_confirmed_are_not_booked_again():
    database = ForgetfulFile()
    tasks = Accounts(store=OpenStore(database, MemoryStorage())).tasks
    database.loses = True
    wanted = bookings({"a": account("a", 4, 1, 8, "total")}, [Wish(), Wish()])
    with pytest.raises(UnknownCommitError):
        tasks.accept_all(wanted)
    assert [job.task.id for job in tasks.all(0.0)] == ["a-0", "a-1"]


def test_tasks_are_found_together_each_by_its_id():
    tasks = Accounts().tasks
    tasks.accept_all(bookings({"a": account("a", 8, 1, 1000, "total")}, [Wish(), Wish(), Wish()]))
    found = tasks.find_all([("a-2", 5.0), ("a\0-1", 5.0), ("a-0", 5.0), ("b", 5.0), ("a-2", 5.0)])
    assert [job and job.task.id for job in found] == ["a-2", None, "a-0", None, "a-2"]
    # A flow may change what it was given, and another one has the same task.
    assert found[0] is not found[4]
