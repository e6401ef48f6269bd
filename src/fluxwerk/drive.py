"""The only place where time passes: loops that run a flow, blocking or on asyncio.

A pretend clock takes the blocking loop through hours in microseconds (`fluxwerk.testing`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from random import Random
from typing import Generic, Protocol, TypeAlias, TypeVar

from fluxwerk.errors import TaskTimeoutError, TransportError
from fluxwerk.types import Call, Flow, HttpRequest, Response

T = TypeVar("T")
Send: TypeAlias = Callable[[HttpRequest, float | None], Response]
AsyncSend: TypeAlias = Callable[[HttpRequest, float | None], Awaitable[Response]]
# A generator of our own: a program that seeds the global one, and a test that counts on it, must not notice us.
DICE = Random()  # noqa: S311  (no secret)
# A last look before the deadline leaves so many seconds for its answer and the image, or half of what is left.  It is
# repeated while that is worth a call.
LAST_LOOK = 1.0
SHORTEST_LOOK = 0.1


class Clock(Protocol):
    """Whatever knows the time in seconds and can let it pass."""

    def now(self) -> float:
        """Seconds since some moment in the past."""
        ...

    def sleep(self, seconds: float) -> None:
        """Come back after so many seconds."""
        ...

    async def nap(self, seconds: float) -> None:
        """Come back after so many seconds, and let the event loop go on meanwhile."""
        ...

    def stretch(self, call: Call) -> float:
        """Lengthen the call's pause by its share of jitter, and return it in seconds."""
        ...


class WallClock:
    """The time outside, with real jitter."""

    def now(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)

    async def nap(self, seconds: float) -> None:
        """Let the event loop go on."""
        import asyncio  # noqa: PLC0415  (a blocking client never needs it)

        await asyncio.sleep(seconds)

    def stretch(self, call: Call) -> float:
        """Lengthen the pause by chance, so that many clients do not come back at once."""
        return call.after * (1 + call.jitter * DICE.random())


WALL = WallClock()


def drive(flow: Flow[T], send: Send, deadline: float | None = None, clock: Clock = WALL) -> T:
    """Run a flow in this thread and return its result.

    `deadline` is a moment on the clock, in seconds; a call that cannot begin before it throws `TaskTimeoutError` into
    the flow.
    """
    with closing(flow):
        step = _Step(flow)
        while step.call is not None:
            left = None if deadline is None else deadline - clock.now()
            pause = pause_before(step.call, left, clock)
            if pause is None:
                step.throw(_out_of_time())
                continue
            if pause:
                clock.sleep(pause)
            try:
                response = send(step.call.request, None if left is None else left - pause)
            except TransportError as loss:
                step.throw(loss)
            else:
                step.send(response)
        return step.result()


async def drive_async(flow: Flow[T], send: AsyncSend, deadline: float | None = None, clock: Clock = WALL) -> T:
    """Run a flow on the running event loop and return its result; `deadline` as in `drive`."""
    with closing(flow):
        step = _Step(flow)
        while step.call is not None:
            left = None if deadline is None else deadline - clock.now()
            pause = pause_before(step.call, left, clock)
            if pause is None:
                step.throw(_out_of_time())
                continue
            if pause:
                await clock.nap(pause)
            budget = None if left is None else left - pause
            try:
                response = await send(step.call.request, budget)
            except TransportError as loss:
                step.throw(loss)
            else:
                step.send(response)
        return step.result()


def pause_before(call: Call, left: float | None, clock: Clock) -> float | None:
    """Say how many seconds to pause before a call that has `left` seconds to its deadline; `None` if it comes too late.

    A pause that may be shortened ends early enough for a last look, so that long pauses lose no image at the deadline.
    """
    pause = clock.stretch(call)
    if left is None or pause < left:
        return pause
    rest = min(LAST_LOOK, left / 2)
    return left - rest if call.early and rest >= SHORTEST_LOOK else None


class _Step(Generic[T]):
    """Where a flow stands: its next call, or its result."""

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self.call: Call | None = None
        self._result: list[T] = []
        self._advance(lambda: next(flow))

    def send(self, response: Response) -> None:
        self._advance(lambda: self._flow.send(response))

    def throw(self, error: Exception) -> None:
        self._advance(lambda: self._flow.throw(error))

    def result(self) -> T:
        return self._result[0]

    def _advance(self, move: Callable[[], Call]) -> None:
        try:
            self.call = move()
        except StopIteration as done:
            self.call, self._result = None, [done.value]


def _out_of_time() -> TaskTimeoutError:
    return TaskTimeoutError("The deadline passed before the image was there.")
