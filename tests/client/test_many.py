"""Many at once, and who leaves early: what has left is paid for, so its answer is read and its task is known."""

from __future__ import annotations

import asyncio
import gc
import threading

import httpx2
import pytest

from fluxwerk import AsyncClient, Client
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback
from support.accounts import accepted

FOXES = [f"fox {n}" for n in range(12)]
SMALL = {"width": 64, "height": 64}


class Heard(list):
    """The events of a client."""

    def kinds(self, kind):
        return [event for event in self if event.kind == kind]

    def tasks(self):
        return {event.task.id for event in self.kinds("submitted")}


@pytest.fixture
def heard():
    return Heard()


class Door(Accounts):
    """Books that count the submits that have come in."""

    def __init__(self):
        super().__init__()
        self.came = 0
        self._news = threading.Condition()

    def has_slot(self, account, model, now):
        with self._news:
            self.came += 1
            self._news.notify_all()
        return super().has_slot(account, model, now)

    def wait(self, number):
        with self._news:
            assert self._news.wait_for(lambda: self.came >= number, 20)

    async def wait_async(self, number):
        await asyncio.to_thread(self.wait, number)


@pytest.fixture
def books():
    return Door()


def serving(books, quick=0):
    """A server that lets the submits after the `quick` ones wait for their answers."""
    return loopback(accounts=books, trouble=[FaultRule(on="submit", do="delay", seconds=0.4, after=quick)])


def test_leaving_many_on_threads_reports_every_task(books, heard):
    """Whoever leaves a client in the middle of many knows every task that was bought."""
    with serving(books, 3) as base, Client("k", base_url=base, slots=3, on_event=heard.append) as client:
        for _ in client.generate_many(FOXES, **SMALL):
            books.wait(4)
            break
    assert heard.tasks() == accepted(books)
    assert not any("InDoubtError" in event.reason for event in heard)


def test_leaving_many_on_a_loop_reports_every_task(books, heard):
    """A coroutine that leaves a client in the middle of many knows every task as well."""

    async def run(base):
        async with AsyncClient("k", base_url=base, slots=3, on_event=heard.append) as client:
            async for _ in client.generate_many(FOXES, **SMALL):
                await books.wait_async(4)
                break

    with serving(books, 3) as base:
        asyncio.run(run(base))
    assert heard.tasks() == accepted(books)
    assert not any("InDoubtError" in event.reason for event in heard)


def test_a_submit_cancelled_after_it_left_is_a_known_task(books, heard):
    """A submit that is cancelled after it left becomes a known task that holds its slot."""

    async def run(base):
        async with AsyncClient("k", base_url=base, slots=1, on_event=heard.append) as client:
            generating = asyncio.create_task(client.generate("a fox", **SMALL))
            await books.wait_async(1)
            generating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await generating
            assert heard == []
        return client

    with serving(books) as base:
        client = asyncio.run(run(base))
    assert heard.tasks() == accepted(books) != set()
    assert set(client.slots._held) == heard.tasks()
    assert [event.kind for event in heard] == ["submitted"]


def test_a_submit_that_is_cut_off_with_its_event_loop_is_told_as_in_doubt(books, heard, caplog):
    async def run(base):
        client = AsyncClient("k", base_url=base, on_event=heard.append)
        generating = asyncio.create_task(client.generate("a fox", **SMALL))
        await books.wait_async(1)
        generating.cancel()
        return client

    with serving(books) as base:
        client = asyncio.run(run(base))
    assert [event.kind for event in heard] == ["failed"]
    assert heard[0].reason.startswith("InDoubtError: ")
    assert "may have been charged" in caplog.text
    settled = threading.Event()
    client.slots.settle(settled.set)
    assert settled.is_set()


def test_a_cancelled_submit_whose_answer_never_comes_is_told_as_in_doubt(books, heard, caplog):
    async def run(base):
        async with AsyncClient("k", base_url=base, on_event=heard.append, timeout=0.6) as client:
            submitting = asyncio.create_task(client.submit("a fox", **SMALL))
            await books.wait_async(1)
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting

    with loopback(accounts=books, trouble=[FaultRule(on="submit", do="stall")]) as base:
        asyncio.run(run(base))
    gc.collect()
    assert [event.kind for event in heard] == ["failed"]
    assert heard[0].reason.startswith("InDoubtError: ")
    assert [record.name for record in caplog.records if "may have been charged" in record.getMessage()] == [
        "fluxwerk.client.session"
    ]
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_doubt_after_the_iterator_is_closed_is_logged(heard, caplog):
    """A doubt that comes when nobody listens to many any more is in the log."""
    books = Door()
    stall = [FaultRule(on="submit", do="stall", after=1)]
    with (
        loopback(accounts=books, trouble=stall) as base,
        Client("k", base_url=base, slots=1, timeout=2, on_event=heard.append) as client,
    ):
        for made in client.generate_many(FOXES[:2], **SMALL):
            assert made.image
            books.wait(2)
            break
    assert "InDoubtError" in heard[-1].reason
    assert "may have been charged" in caplog.text


def test_many_send_nothing_more_when_their_client_was_closed(books, heard):
    with serving(books, 1) as base, Client("k", base_url=base, slots=1, on_event=heard.append) as client:
        many = client.generate_many(FOXES[:3], **SMALL)
        first = next(many)
        books.wait(2)
    rest = list(many)
    assert first.image
    bought, unbought = sorted(rest, key=lambda made: made.error.task is None)
    assert bought.error.task.id in accepted(books)
    assert "was closed" in str(bought.error)
    assert "Nothing was sent" in str(unbought.error)
    assert len(accepted(books)) == 2


def test_many_coroutines_send_nothing_more_when_their_client_was_closed(books):
    async def run(base):
        async with AsyncClient("k", base_url=base, slots=1) as client:
            many = client.generate_many(FOXES[:3], **SMALL)
            first = await anext(many)
            await books.wait_async(2)
        return first, [one async for one in many]

    with serving(books, 1) as base:
        first, rest = asyncio.run(run(base))
    assert first.image
    bought, unbought = sorted(rest, key=lambda made: made.error.task is None)
    assert bought.error.task.id in accepted(books)
    assert "was closed" in str(bought.error)
    assert "Nothing was sent" in str(unbought.error)
    assert len(accepted(books)) == 2


def test_a_blocking_submit_that_is_interrupted_is_told_as_in_doubt(heard):
    def interrupt(_):
        raise KeyboardInterrupt

    with httpx2.Client(transport=httpx2.MockTransport(interrupt)) as http:
        client = Client("k", http_client=http, on_event=heard.append)
        with pytest.raises(KeyboardInterrupt) as caught:
            client.generate("a fox")
    assert [event.kind for event in heard] == ["failed"]
    assert heard[0].reason.startswith("InDoubtError: ")
    assert "may have been charged" in caught.value.__notes__[0]


def test_a_refused_submit_is_not_repeated_for_a_closed_iterator(heard):
    """A submit that was refused is not repeated once nobody waits for it."""

    async def run(base):
        async with AsyncClient("k", base_url=base, on_event=heard.append) as client:
            submitting = asyncio.create_task(client.submit("a fox", **SMALL))
            await books.wait_async(1)
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting

    class Full(Door):
        def has_slot(self, account, model, now):
            super().has_slot(account, model, now)
            return False

    books = Full()
    with serving(books) as base:
        asyncio.run(run(base))
    assert heard.kinds("submitted") == []
    assert books.came == 1
