"""Where flows run: on the event loop if the state answers at once, in threads if it waits for a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from fluxwerk.drive import WALL, AsyncSend, Exchange, Steps, Wait, drive_async, steps, take
from fluxwerk.errors import TransportError
from fluxwerk.ledger.postgresql import CONNECTIONS
from fluxwerk.server.inquiry import AskingFlow, answered
from fluxwerk.server.lane import Finished, Lane
from fluxwerk.types import Response

T = TypeVar("T")


class FlowDriver:
    """Drives flows that ask the state; `blocks` says that a question may wait for the network."""

    def __init__(self, *, blocks: bool) -> None:
        # As many threads as there are connections: a thread without one would only wait.
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="state") if blocks else None
        self._lane = Lane(self._threads) if self._threads else None

    async def call(self, act: Callable[[], T]) -> T:
        """Ask the state once."""
        if self._threads is None:
            return act()
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, act)

    async def drive(
        self, flow: AskingFlow[T], send: AsyncSend, deadline: float | None = None, *, together: bool = False
    ) -> T:
        """Run a flow and return its result; short ones that come often run `together` with others of their kind."""
        if self._lane is None:
            return await drive_async(answered(flow), send, deadline)
        step = await self._lane.run(flow) if together else None
        if isinstance(step, Finished):
            return step.result
        return await self._drive(steps(answered(flow, step), deadline, WALL), send)

    async def _drive(self, taken: Steps[T], send: AsyncSend) -> T:
        """Take each step of the flow in a thread, and send what it asks for on the event loop."""
        reply: Response | TransportError | None = None
        while True:
            step = await self.call(partial(_take, taken, reply))
            reply = None
            if isinstance(step, Finished):
                return step.result
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                continue
            try:
                reply = await send(step.request, step.budget)
            except TransportError as loss:
                reply = loss


def _take(taken: Steps[T], reply: Response | TransportError | None) -> Wait | Exchange | Finished[T]:
    try:
        return take(taken, reply)
    except StopIteration as done:
        return Finished(done.value)
