"""A lane: flows that wait for a thread at the same moment share one, and their questions share an exchange.

A step to a thread and back costs as much as a poll, and so does an exchange with a database.  A lane takes all flows
that have gathered while it was busy, runs each until it asks something, and asks what is alike together.  A flow that
calls another server, or asks what it has to ask alone, leaves the lane.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from fluxwerk.server.inquiry import AskingFlow, Inquiry
from fluxwerk.types import Call

T = TypeVar("T")
# How many flows run together: a submit holds its account until all of them are booked.
FLOWS_TOGETHER = 32
# Seconds after which those that wait get a thread of their own: one of the others waits for a lock.
OVERDUE = 0.02


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """The result of a flow: `StopIteration` itself cannot leave a thread."""

    result: T


@dataclass(frozen=True, slots=True)
class _Failed:
    """What a flow raised."""

    error: Exception


Left: TypeAlias = "Finished[T] | Call | Inquiry[Any]"


class _Runner:
    """A flow in a lane, in the context of its request, and who waits until it has left."""

    def __init__(self, flow: AskingFlow[Any], left: asyncio.Future[Left[Any]]) -> None:
        self.left = left
        self._flow = flow
        self._context = copy_context()

    def send(self, reply: object) -> Left[Any] | _Failed:
        """Hand an answer to the flow, and return its next step."""
        return self._step(self._flow.send, reply)

    def throw(self, error: Exception) -> Left[Any] | _Failed:
        """Hand the flow the error that came instead of an answer."""
        return self._step(self._flow.throw, error)

    def leave(self, step: Left[Any] | _Failed) -> None:
        """Say what the flow has come to; one whose request was given up is closed."""
        if self.left.done():
            self._flow.close()
        elif isinstance(step, _Failed):
            self.left.set_exception(step.error)
        else:
            self.left.set_result(step)

    def _step(self, resume: Callable[[Any], Call | Inquiry[Any]], given: object) -> Left[Any] | _Failed:
        try:
            return self._context.run(resume, given)
        except StopIteration as done:
            return Finished(done.value)
        except Exception as error:  # noqa: BLE001  (it reaches who waits for the flow)
            return _Failed(error)


class Lane:
    """Runs flows in `threads`, one batch of them after the other, and beside one that takes long."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._waiting: list[_Runner] = []
        # The batch for which others wait.
        self._ahead: list[_Runner] | None = None

    async def run(self, flow: AskingFlow[T]) -> Left[T]:
        """Run a flow until it has ended, or until it yields what cannot be done here."""
        loop = asyncio.get_running_loop()
        runner = _Runner(flow, loop.create_future())
        self._waiting.append(runner)
        if self._ahead is None and len(self._waiting) == 1:
            # Requests that have arrived with this one come along.
            loop.call_soon(self._start, loop)
        return await runner.left

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._ahead is not None or not self._waiting:
            return
        batch, self._waiting = self._waiting[:FLOWS_TOGETHER], self._waiting[FLOWS_TOGETHER:]
        self._ahead = batch
        overdue = loop.call_later(OVERDUE, self._follow, loop, batch)

        def end(done: asyncio.Future[list[tuple[_Runner, Left[Any] | _Failed]]]) -> None:
            overdue.cancel()
            for runner, step in done.result():
                runner.leave(step)
            self._follow(loop, batch)

        loop.run_in_executor(self._threads, _run, batch).add_done_callback(end)

    def _follow(self, loop: asyncio.AbstractEventLoop, batch: list[_Runner]) -> None:
        """Let those that wait go on, as nobody waits for this batch any more."""
        if self._ahead is batch:
            self._ahead = None
            self._start(loop)


def _run(batch: Sequence[_Runner]) -> list[tuple[_Runner, Left[Any] | _Failed]]:
    """Run flows until each has left, and return with what."""
    left: list[tuple[_Runner, Left[Any] | _Failed]] = []
    steps = [(runner, runner.send(None)) for runner in batch]
    while steps:
        asked: dict[Any, list[tuple[_Runner, Inquiry[Any]]]] = defaultdict(list)
        for runner, step in steps:
            if isinstance(step, Inquiry) and step.together is not None:
                asked[step.together].append((runner, step))
            else:
                left.append((runner, step))
        steps = [step for together, group in asked.items() for step in _answer(together, group)]
    return left


def _answer(
    together: Callable[[Sequence[Any]], Sequence[Any] | None], group: Sequence[tuple[_Runner, Inquiry[Any]]]
) -> Iterator[tuple[_Runner, Left[Any] | _Failed]]:
    """Ask questions of a kind, and take each flow one step further."""
    try:
        replies = together([question.about for _, question in group])
    except Exception as error:  # noqa: BLE001  (it reaches every flow that asked)
        yield from ((runner, runner.throw(error)) for runner, _ in group)
        return
    if replies is None:
        # Each leaves with its question.
        yield from ((runner, question._replace(together=None)) for runner, question in group)
        return
    yield from ((runner, runner.send(reply)) for (runner, _), reply in zip(group, replies, strict=True))
