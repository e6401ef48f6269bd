"""Flows that wait together share a thread and an exchange with the database, and none waits long for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from fluxwerk.errors import StorageError
from fluxwerk.server.driving import FlowDriver
from fluxwerk.server.inquiry import AskingFlow, Inquiry, ask
from fluxwerk.server.lane import FLOWS_TOGETHER, Finished, Lane
from fluxwerk.types import Call, HttpRequest, Response

REQUEST: ContextVar[int] = ContextVar("request")


class Database:
    """Notes which questions were asked in one exchange, and which alone."""

    def __init__(self) -> None:
        self.exchanges: list[list[int]] = []
        self.alone: list[tuple[int, str]] = []

    def double_all(self, numbers: Sequence[int]) -> list[int]:
        self.exchanges.append(list(numbers))
        return [2 * number for number in numbers]

    def refuse_all(self, numbers: Sequence[int]) -> None:
        self.exchanges.append(list(numbers))

    def lose_all(self, numbers: Sequence[int]) -> list[int]:
        self.exchanges.append(list(numbers))
        raise StorageError("the database is away")

    def double(self, number: int) -> int:
        self.alone.append((number, threading.current_thread().name))
        return 2 * number


@contextmanager
def lane() -> Iterator[Lane]:
    with ThreadPoolExecutor(4, thread_name_prefix="state") as threads:
        yield Lane(threads)


def doubled(database: Database, number: int, together: Callable[..., Any] | None = None) -> AskingFlow[int]:
    return (yield from ask(lambda: database.double(number), together or database.double_all, number))


def all_of(works: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*works, return_exceptions=True)

    return asyncio.run(run())


def test_flows_that_wait_together_ask_in_one_exchange():
    database = Database()
    with lane() as of:
        results = all_of([of.run(doubled(database, number)) for number in range(5)])
    assert results == [Finished(2 * number) for number in range(5)]
    assert database.exchanges == [[0, 1, 2, 3, 4]]
    assert not database.alone


def test_no_exchange_is_larger_than_the_lane():
    database = Database()
    with lane() as of:
        all_of([of.run(doubled(database, number)) for number in range(2 * FLOWS_TOGETHER + 1)])
    assert sorted(map(len, database.exchanges)) == [1, FLOWS_TOGETHER, FLOWS_TOGETHER]


def test_each_round_of_questions_is_gathered_by_their_kind():
    database = Database()

    def flow(number: int) -> AskingFlow[int]:
        first = yield from doubled(database, number)
        if number % 2:
            return first
        return (yield from doubled(database, first))

    with lane() as of:
        results = all_of([of.run(flow(number)) for number in range(4)])
    assert [one.result for one in results] == [0, 2, 8, 6]
    assert database.exchanges == [[0, 1, 2, 3], [0, 4]]


def test_a_lost_exchange_reaches_each_flow_which_may_answer_for_it():
    database = Database()

    def flow(number: int) -> AskingFlow[str]:
        try:
            yield from doubled(database, number, database.lose_all)
        except StorageError:
            if number:
                return "unavailable"
            raise
        return "asked"

    with lane() as of:
        failed, *answered = all_of([of.run(flow(number)) for number in range(3)])
    assert isinstance(failed, StorageError)
    assert answered == [Finished("unavailable"), Finished("unavailable")]


def test_what_is_not_answered_together_leaves_to_be_asked_alone():
    database = Database()

    async def send(*_: object) -> Response:
        raise AssertionError

    driver = FlowDriver(blocks=True)
    flows = [doubled(database, number, database.refuse_all) for number in range(3)]
    results = all_of([driver.drive(flow, send, together=True) for flow in flows])
    assert results == [0, 2, 4]
    assert database.exchanges == [[0, 1, 2]]
    assert {number for number, _ in database.alone} == {0, 1, 2}
    assert all(thread.startswith("state") for _, thread in database.alone)


def test_a_flow_that_calls_another_server_leaves_the_lane_and_returns_with_its_result():
    database = Database()

    def flow(number: int) -> AskingFlow[int]:
        asked = yield from doubled(database, number)
        response = yield Call(HttpRequest("GET", "http://a.test/"))
        return asked + response.status

    async def send(*_: object) -> Response:
        return Response(200)

    driver = FlowDriver(blocks=True)
    assert all_of([driver.drive(flow(number), send, together=True) for number in (1, 2)]) == [202, 204]
    assert database.exchanges == [[1, 2]]


def test_a_question_without_others_of_its_kind_is_asked_in_a_thread_of_its_own():
    released = threading.Event()

    def flow() -> AskingFlow[bool]:
        return (yield from ask(lambda: released.wait(10)))

    def quick() -> AskingFlow[str]:
        released.set()
        return "done"
        yield

    async def send(*_: object) -> Response:
        raise AssertionError

    driver = FlowDriver(blocks=True)
    assert all_of([driver.drive(flow(), send, together=True), driver.drive(quick(), send, together=True)]) == [
        True,
        "done",
    ]


def test_a_batch_that_waits_for_a_lock_does_not_hold_up_the_next():
    locked, begun = threading.Event(), threading.Event()

    def wait_all(numbers: Sequence[int]) -> list[bool]:
        begun.set()
        return [locked.wait(10) for _ in numbers]

    def slow() -> AskingFlow[bool]:
        return (yield from ask(lambda: False, wait_all, 0))

    async def run(of: Lane) -> list[Any]:
        first = asyncio.ensure_future(of.run(slow()))
        await asyncio.to_thread(begun.wait, 10)
        database = Database()
        # The second of them comes when the first batch is overdue, and the third after that.
        answers = [await of.run(doubled(database, number)) for number in range(3)]
        locked.set()
        return [*answers, await first]

    with lane() as of:
        assert [one.result for one in asyncio.run(run(of))] == [0, 2, 4, True]


def test_each_flow_runs_in_the_context_of_its_request():
    database = Database()

    def flow() -> AskingFlow[int]:
        yield from doubled(database, 0)
        return REQUEST.get()

    async def request(of: Lane, number: int) -> int:
        REQUEST.set(number)
        left = await of.run(flow())
        assert isinstance(left, Finished)
        return left.result

    with lane() as of:
        assert all_of([request(of, number) for number in range(3)]) == [0, 1, 2]


def test_a_flow_whose_request_was_given_up_is_closed():
    begun, closed, going_on = threading.Event(), threading.Event(), threading.Event()

    def hold_all(numbers: Sequence[int]) -> None:
        begun.set()
        going_on.wait(10)

    def flow() -> AskingFlow[int]:
        try:
            return (yield from ask(lambda: 0, hold_all))
        finally:
            closed.set()

    # Held here, so that nobody else closes it.
    held = flow()

    async def run(of: Lane) -> None:
        running = asyncio.ensure_future(of.run(held))
        await asyncio.to_thread(begun.wait, 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        going_on.set()
        assert await asyncio.to_thread(closed.wait, 10)

    with lane() as of:
        asyncio.run(run(of))


def test_an_inquiry_is_known_by_what_it_is_about():
    assert next(ask(int, len, "x")) == Inquiry(int, len, "x")
