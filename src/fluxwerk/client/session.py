"""One drive of a flow, as a client sees it: what is told of it, whose slot it takes, and what may end its pauses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from fluxwerk.client.slots import ClientSlots, SlotClaim
from fluxwerk.client.wakeup import Wakeup
from fluxwerk.drive import Clock
from fluxwerk.errors import FluxwerkError, InDoubtError, TaskFailedError
from fluxwerk.protocol import flow, retry
from fluxwerk.types import Call, Event, Json, Outcome, Response, Task, Tell

if TYPE_CHECKING:
    from typing import Self

RUNNING = frozenset({Outcome.RUNNING, Outcome.MISSING})

log = logging.getLogger("fluxwerk.client.session")


class WebhookListener(Protocol):
    """Where webhooks come in: a `fluxwerk.webhook.Receiver`, or anything else that rings a bell for a task's end."""

    @property
    def bell(self) -> Wakeup:
        """What is rung when a webhook has come."""
        ...

    @property
    def options(self) -> Mapping[str, Json]:
        """What a submit has to say so that its webhook comes here."""
        ...

    def expect(self, task: Task) -> None:
        """Hear of a task that was submitted."""
        ...


class Session:
    """One drive of a flow: tells what happens, and holds the slot of the task that comes of it."""

    def __init__(
        self,
        clock: Clock,
        slots: ClientSlots,
        on_event: Tell,
        webhook: WebhookListener | None = None,
        task: Task | None = None,
    ) -> None:
        self._clock = clock
        self._slots = slots
        self._on_event = on_event
        self._webhook = webhook
        self._began = clock.now()
        # The task that comes of it, as soon as it is known.
        self.task = task
        self._stop: Callable[[], object] | None = None
        # What a submit that is on its way holds; its answer turns it into a task's slot or gives it back.
        self.seat: SlotClaim | None = None

    @property
    def clock(self) -> Clock:
        """The clock to drive by: with webhooks one whose pauses end early when the task's bell rings."""
        return _Listening(self._clock, self._webhook.bell, lambda: self.task) if self._webhook else self._clock

    def tell(self, event: Event) -> None:
        """Pass an event on, with its seconds, and keep the books of the slots."""
        if event.kind == "submitted" and event.task:
            self._submitted(event.task)
        if event.kind == "polled" and event.status and event.status.outcome not in RUNNING:
            self._slots.ended(event.status.task)
        told = replace(event, seconds=self._clock.now() - self._began)
        log.debug("%s %s", told.kind, told.task.id if told.task else told.reason)
        self._on_event(told)
        if event.kind == "submitted":
            self._answered()

    def _submitted(self, task: Task) -> None:
        self.task = task
        if self._webhook:
            self._webhook.expect(task)
        if self.seat:
            self._slots.hold(self.seat, task)
            self.seat = None

    def withdraw(self) -> None:
        """Give the slot back after a submit that never left; it is asked for anew."""
        if self.seat:
            self._slots.give_back(self.seat)
            self.seat = None
        self._answered()

    def answered(self, response: Response) -> None:
        """Give the slot back after a submit that was refused; one that is too busy cools the whole pool down."""
        if self.seat and response.status not in flow.OK:
            busy = response.status in flow.BUSY
            asked = retry.retry_after(response.headers) or retry.FIRST_BACKOFF
            self._slots.give_back(self.seat, min(asked, retry.LONGEST_RETRY_AFTER) if busy else None)
            self.seat = None
            self._answered()

    def abandon(self, stop: Callable[[], object]) -> bool:
        """Stop since nobody waits any more: at once, or as soon as the submit that is on its way has been answered.

        Returns whether there is such a submit.  Its task is told, and holds its slot.
        """
        if self.seat is None:
            stop()
            return False
        self._stop = stop
        return True

    def _answered(self) -> None:
        if self._stop:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if self.seat:
            self._slots.give_back(self.seat)
            if error and not isinstance(error, FluxwerkError):
                self._tell_doubt(error)
        if isinstance(error, TaskFailedError) and error.task:
            self._slots.ended(error.task)
        elif self.task:
            self._slots.leave(self.task)
        if isinstance(error, InDoubtError) and self._stop:
            # Nobody is there to catch it, and it is about money.
            log.warning("%s", error)
        if isinstance(error, FluxwerkError):
            self.tell(Event("failed", error.task, reason=f"{type(error).__name__}: {error}"))

    def _tell_doubt(self, cut: BaseException) -> None:
        """Say what an interruption would hide: a submit had left when it came."""
        doubt = f"A submit had left and may have been charged; its answer was cut off ({type(cut).__name__}). "
        doubt += "Look at your account's usage before you send it again."
        cut.add_note(doubt)
        log.warning("%s", doubt)
        self.tell(Event("failed", reason=f"InDoubtError: {doubt}"))


class _Listening:
    """A clock whose pauses end early, if they may, when the bell rings for the task that is waited for."""

    def __init__(self, clock: Clock, bell: Wakeup, task: Callable[[], Task | None]) -> None:
        self._clock = clock
        self._bell = bell
        self._task = task
        self._early = False
        self.now = clock.now

    def stretch(self, call: Call) -> float:
        self._early = call.early
        return self._clock.stretch(call)

    def sleep(self, seconds: float) -> None:
        task = self._task() if self._early else None
        if task:
            self._bell.nap(task.id, seconds)
        else:
            self._clock.sleep(seconds)

    async def nap(self, seconds: float) -> None:
        task = self._task() if self._early else None
        if task:
            await self._bell.nap_async(task.id, seconds)
        else:
            await self._clock.nap(seconds)
