"""The only place where time passes: loops that run a flow, blocking or on asyncio.

A flow becomes steps, `Wait` and `Exchange`, and one coroutine takes them; on a thread it never waits for an event loop.
A pretend clock takes the blocking loop through hours in microseconds (`fluxwerk.testing`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, closing, suppress
from random import Random
from typing import NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar

from fluxwerk.errors import TaskTimeoutError, TransportError
from fluxwerk.types import Call, Flow, HttpRequest, Response

P = ParamSpec("P")
T = TypeVar("T")
Send: TypeAlias = Callable[[HttpRequest, float | None], Response]
AsyncSend: TypeAlias = Callable[[HttpRequest, float | None], Awaitable[Response]]
Wake: TypeAlias = Callable[[], object]
# Registers a function to be called, from any thread, when a wait may end; yields whether it may end already.
Listen: TypeAlias = Callable[[Wake], AbstractContextManager[bool]]
AsyncSleep: TypeAlias = Callable[[float, "Listen | None"], Awaitable[None]]
# A generator of our own: a program that seeds the global one, and a test that counts on it, must not notice us.
DICE = Random()  # noqa: S311  (no secret)
# A last look before the deadline leaves this many seconds for its answer and the image, or half of what is left.  It is
# repeated while that is worth a call.
LAST_LOOK = 1.0
SHORTEST_LOOK = 0.1


class Wait(NamedTuple):
    """Let `seconds` pass, or fewer if `listen` says so."""

    seconds: float
    listen: Listen | None = None


class Exchange(NamedTuple):
    """Send a request; its answer has `budget` seconds."""

    request: HttpRequest
    budget: float | None = None


# What a loop has to do next; it is sent the response of an exchange, and thrown the `TransportError` that came instead.
Steps: TypeAlias = Generator[Wait | Exchange, Response | None, T]


class Clock(Protocol):
    """Whatever knows the time in seconds and can let it pass."""

    def now(self) -> float:
        """Seconds since some moment in the past."""
        ...

    def sleep(self, seconds: float, listen: Listen | None = None) -> None:
        """Return after `seconds`, or when `listen` says so."""
        ...

    async def sleep_async(self, seconds: float, listen: Listen | None = None) -> None:
        """Come back as `sleep` does, and let the event loop go on meanwhile."""
        ...

    def stretch(self, call: Call) -> float:
        """Lengthen the call's pause by its share of jitter, and return it in seconds."""
        ...


class WallClock:
    """The time outside, with real jitter."""

    def now(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float, listen: Listen | None = None) -> None:
        """Block this thread."""
        if listen is None:
            time.sleep(seconds)
            return
        import threading  # noqa: PLC0415  (programs without threads need it only here)

        woken = threading.Event()
        with listen(woken.set) as early:
            if not early:
                woken.wait(seconds)

    async def sleep_async(self, seconds: float, listen: Listen | None = None) -> None:
        """Let the event loop go on."""
        import asyncio  # noqa: PLC0415  (a blocking client never needs it)

        if listen is None:
            await asyncio.sleep(seconds)
            return
        woken, loop = asyncio.Event(), asyncio.get_running_loop()
        with listen(lambda: loop.call_soon_threadsafe(woken.set)) as early, suppress(TimeoutError):
            if not early:
                async with asyncio.timeout(seconds):
                    await woken.wait()

    def stretch(self, call: Call) -> float:
        """Lengthen the pause by chance, so that many clients do not come back at once."""
        return call.after * (1 + call.jitter * DICE.random())


WALL = WallClock()


def drive(flow: Flow[T], send: Send, deadline: float | None = None, clock: Clock = WALL) -> T:
    """Run a flow in this thread and return its result.

    `deadline` is a moment on the clock, in seconds; a call that cannot begin before it throws `TaskTimeoutError` into
    the flow.
    """
    return run(steps(flow, deadline, clock), send, clock)


async def drive_async(flow: Flow[T], send: AsyncSend, deadline: float | None = None, clock: Clock = WALL) -> T:
    """Run a flow on the running event loop and return its result; `deadline` as in `drive`."""
    return await run_async(steps(flow, deadline, clock), send, clock)


def ask(request: HttpRequest, budget: float | None) -> Steps[Response]:
    """Send a request as it is."""
    response = yield Exchange(request, budget)
    assert response is not None
    return response


def steps(
    flow: Flow[T],
    deadline: float | None,
    clock: Clock,
    ask: Callable[[HttpRequest, float | None], Steps[Response]] = ask,
    listen: Callable[[], Listen | None] = lambda: None,
) -> Steps[T]:
    """Turn a flow into what a loop has to do: pauses, and what `ask` makes of each request.

    `listen` is asked before each pause that may end early.
    """
    with closing(flow):
        try:
            call = next(flow)
            while True:
                left = None if deadline is None else deadline - clock.now()
                pause = pause_before(call, left, clock)
                if pause is None:
                    call = flow.throw(out_of_time())
                    continue
                if pause:
                    yield Wait(pause, listen() if call.early else None)
                try:
                    response = yield from ask(call.request, None if left is None else left - pause)
                except TransportError as loss:
                    call = flow.throw(loss)
                else:
                    call = flow.send(response)
        except StopIteration as done:
            result: T = done.value
            return result


def run(steps: Steps[T], send: Send, clock: Clock = WALL) -> T:
    """Take the steps in this thread, and return what they come to."""
    return complete(_run(steps, lift(send), lift(clock.sleep)))


async def run_async(steps: Steps[T], send: AsyncSend, clock: Clock = WALL) -> T:
    """Take the steps on the running event loop, and return what they come to."""
    return await _run(steps, send, clock.sleep_async)


async def _run(steps: Steps[T], send: AsyncSend, sleep: AsyncSleep) -> T:
    reply: Response | TransportError | None = None
    with closing(steps):
        while True:
            try:
                step = take(steps, reply)
            except StopIteration as done:
                result: T = done.value
                return result
            reply = None
            if isinstance(step, Wait):
                await sleep(step.seconds, step.listen)
                continue
            try:
                reply = await send(step.request, step.budget)
            except TransportError as loss:
                reply = loss


def lift(work: Callable[P, T]) -> Callable[P, Coroutine[None, None, T]]:
    """Make blocking work awaitable, for code that is written once for threads and event loops; it still blocks."""

    async def lifted(*given: P.args, **named: P.kwargs) -> T:
        return work(*given, **named)

    return lifted


def complete(coroutine: Coroutine[None, None, T]) -> T:
    """Run a coroutine in this thread, without an event loop; it may await only what `lift` made."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("The coroutine waits for an event loop, and this thread runs none.")


def take(steps: Steps[T], reply: Response | TransportError | None) -> Wait | Exchange:
    """Hand in what came of the last step, and return the next one; raises `StopIteration` with the result."""
    return steps.throw(reply) if isinstance(reply, TransportError) else steps.send(reply)


def pause_before(call: Call, left: float | None, clock: Clock) -> float | None:
    """Say how many seconds to pause before a call that has `left` seconds to its deadline; `None` if it comes too late.

    A pause that may be shortened ends early enough for a last look, so that long pauses lose no image at the deadline.
    """
    pause = clock.stretch(call)
    if left is None or pause < left:
        return pause
    rest = min(LAST_LOOK, left / 2)
    return left - rest if call.early and rest >= SHORTEST_LOOK else None


def out_of_time() -> TaskTimeoutError:
    """Make the error of a call that cannot begin before the deadline."""
    return TaskTimeoutError("The deadline passed before the image was there.")


def time_of_day(seconds: float) -> str:
    """Name the time of day that lies `seconds` from now, in UTC."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + seconds))
