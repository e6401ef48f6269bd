"""Many images at once on the pretend clock: within the slots, side by side, and exact to the microsecond."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from fluxwerk.client.client import LOOK_AROUND
from fluxwerk.client.image import Image
from fluxwerk.client.many import Result
from fluxwerk.client.session import Session
from fluxwerk.client.slots import ClientSlots
from fluxwerk.drive import pause_before
from fluxwerk.errors import ConnectionFailedError, FluxwerkError, TaskTimeoutError, TransportError
from fluxwerk.testing.clock import PretendClock
from fluxwerk.types import Call, Flow, HttpRequest, Pool, Request, Response, Tell

Begin = Callable[[Tell], Flow[Image]]


@dataclass(eq=False, slots=True)
class _Walk:
    """One conversation on its way: what it wants to send next, once it has the slot for it."""

    request: Request | str
    talk: Session
    flow: Flow[Image]
    call: Call | None = None


class Crowd:
    """Drives many conversations on one pretend clock, as a client with these slots would on a real one."""

    def __init__(
        self, clock: PretendClock, slots: ClientSlots, send: Callable[[HttpRequest], Response], deadline: float
    ) -> None:
        self._clock = clock
        self._slots = slots
        self._send = send
        self._deadline = deadline
        self._queue: list[tuple[float, int, _Walk]] = []
        self._tickets = count()
        self._waiting: dict[_Walk, Pool] = {}

    def run(self, many: Iterable[tuple[Request | str, Session, Begin]]) -> Generator[Result]:
        """Start them all, in their order, and yield each as it ends."""
        for request, talk, begin in many:
            walk = _Walk(request, talk, _converse(talk, begin))
            yield from self._step(walk, walk.flow.__next__)
        while self._queue or self._waiting:
            if self._queue:
                moment, _, walk = heappop(self._queue)
                self._clock.jump_to(moment)
                yield from self._go(walk)
            else:
                self._look_around()

    def _go(self, walk: _Walk) -> Generator[Result]:
        assert walk.call is not None
        request = walk.call.request
        if self._clock.now() >= self._deadline:
            late = TaskTimeoutError("The deadline passed before the image was there.")
            yield from self._step(walk, lambda: walk.flow.throw(late))
        elif request.pool and walk.talk.seat is None:
            self._take_seat(walk, request.pool)
        else:
            try:
                response = self._send(request)
            except TransportError as loss:
                lost = loss
                if isinstance(lost, ConnectionFailedError):
                    walk.talk.withdraw()
                yield from self._step(walk, lambda: walk.flow.throw(lost))
            else:
                if request.pool:
                    walk.talk.answered(response)
                yield from self._step(walk, lambda: walk.flow.send(response))

    def _take_seat(self, walk: _Walk, pool: Pool) -> None:
        def wake() -> None:
            del self._waiting[walk]
            self._put(walk, self._clock.now())

        self._waiting[walk] = pool
        walk.talk.seat = self._slots.ask(pool, wake)

    def _look_around(self) -> None:
        """Let time pass while everybody waits for a slot: a cool-down ends by time alone, and so does patience."""
        self._clock.sleep(LOOK_AROUND)
        if self._clock.now() >= self._deadline:
            for walk in self._waiting:
                self._put(walk, self._clock.now())
            self._waiting.clear()
        for pool in set(self._waiting.values()):
            self._slots.nudge(pool)

    def _put(self, walk: _Walk, moment: float) -> None:
        heappush(self._queue, (moment, next(self._tickets), walk))

    def _step(self, walk: _Walk, move: Callable[[], Call]) -> Generator[Result]:
        try:
            walk.call = move()
        except StopIteration as done:
            yield Result(walk.request, done.value)
        except FluxwerkError as error:
            yield Result(walk.request, error=error)
        else:
            pause = pause_before(walk.call, self._deadline - self._clock.now(), self._clock)
            self._put(walk, self._deadline if pause is None else self._clock.now() + pause)


def _converse(talk: Session, begin: Begin) -> Flow[Image]:
    with talk:
        return (yield from begin(talk.tell))
