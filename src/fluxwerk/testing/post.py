"""The line between client and server on a pretend clock: webhooks when they are due, and answers that never come."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from fluxwerk.errors import NoResponseError, TransportError
from fluxwerk.server.faults.effects import SpoiltResponse
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.testing.clock import PretendClock
from fluxwerk.types import Flow, HttpRequest, Response

# How long a client without a deadline of its own stays on a silent line, in seconds.
SILENCE = 60.0


class Post:
    """Carries the server's webhooks to a receiver, each at its moment and in the order of these moments."""

    def __init__(self, state: ServerState, clock: PretendClock, receiver: Callable[[HttpRequest], Response]) -> None:
        self._state = state
        self._clock = clock
        self._receiver = receiver
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._tickets = count()

    def add(self, job: TaskRecord) -> None:
        """Take a task that has an ending, and deliver its webhook when it is due."""
        if job.webhook is not None:
            self.later(job.ready_at or 0.0, lambda: self._begin(job))

    def deliver(self, until: float | None) -> None:
        """Do everything that is due by a moment, or everything there is while the clock jumps along."""
        while self._due and (until is None or self._due[0][0] <= until):
            moment, _, act = heappop(self._due)
            self._clock.jump_to(moment)
            act()

    def _begin(self, job: TaskRecord) -> None:
        if self._state.take_webhook(job):
            self._step(self._state.delivery(job), None)

    def _step(self, flow: Flow[None], reply: Response | TransportError | None) -> None:
        try:
            call = flow.throw(reply) if isinstance(reply, TransportError) else flow.send(reply) if reply else next(flow)
        except StopIteration:
            return
        self.later(self._clock.now() + call.after, lambda: self._send(flow, call.request))

    def _send(self, flow: Flow[None], request: HttpRequest) -> None:
        try:
            reply: Response | TransportError = self._receiver(request)
        except TransportError as lost:
            reply = lost
        self._step(flow, reply)

    def later(self, moment: float, act: Callable[[], None]) -> None:
        """Do something at a moment."""
        heappush(self._due, (moment, next(self._tickets), act))


def suffer(answer: SpoiltResponse, clock: PretendClock, budget: float | None) -> None:
    """Let pass what a spoilt answer takes; raises `NoResponseError` if the client does not get it in time."""
    effect = answer.effect
    patience = SILENCE if budget is None else budget
    lasts = effect.lasts(answer.body) if not effect.holds else patience
    clock.sleep(min(lasts, patience))
    if effect.breaks:
        raise NoResponseError("the line broke before the whole answer was there")
    if lasts > patience:
        raise NoResponseError("no whole answer came in time")
