"""Many images at once on the pretend clock: within the slots, side by side, and exact to the microsecond."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from fluxwerk.client.image import Image
from fluxwerk.client.many import Result
from fluxwerk.drive import Steps, Wait, take
from fluxwerk.errors import FluxwerkError, TransportError
from fluxwerk.testing.clock import PretendClock
from fluxwerk.types import HttpRequest, Request, Response


@dataclass(eq=False, slots=True)
class _Walk:
    """One image on its way: the steps to it, the wait that it is in, and what listens for the end of that wait."""

    request: Request | str
    steps: Steps[Image]
    wait: int = -1
    listening: ExitStack = field(default_factory=ExitStack)


class Crowd:
    """Takes the steps to many images side by side on one pretend clock, as threads would on a real one."""

    def __init__(self, clock: PretendClock, send: Callable[[HttpRequest, float | None], Response]) -> None:
        self._clock = clock
        self._send = send
        self._waits: list[tuple[float, int, _Walk]] = []
        self._numbers = count()

    def run(self, many: Iterable[tuple[Request | str, Steps[Image]]]) -> Generator[Result]:
        """Start them all, in their order, and yield each as it ends."""
        for request, steps in many:
            yield from self._go(_Walk(request, steps))
        while self._waits:
            moment, number, walk = heappop(self._waits)
            # A wait that was ended early is still in the heap.
            if number == walk.wait:
                self._clock.jump_to(moment)
                yield from self._go(walk)

    def _go(self, walk: _Walk) -> Generator[Result]:
        """Take the steps of one image up to its next wait, or its end."""
        walk.listening.close()
        reply: Response | TransportError | None = None
        while True:
            try:
                step = take(walk.steps, reply)
            except StopIteration as done:
                yield Result(walk.request, done.value)
                return
            except FluxwerkError as error:
                yield Result(walk.request, error=error)
                return
            if isinstance(step, Wait):
                self._put(walk, step)
                return
            try:
                reply = self._send(step.request, step.budget)
            except TransportError as loss:
                reply = loss

    def _put(self, walk: _Walk, step: Wait) -> None:
        def wake() -> None:
            self._schedule(walk, self._clock.now())

        self._schedule(walk, self._clock.now() + step.seconds)
        if step.listen and walk.listening.enter_context(step.listen(wake)):
            wake()

    def _schedule(self, walk: _Walk, moment: float) -> None:
        walk.wait = next(self._numbers)
        heappush(self._waits, (moment, walk.wait, walk))
