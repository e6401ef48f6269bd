"""One drive of a flow, as a client sees it: its events, the slot that its submit takes, and what ends its pauses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Protocol, TypeVar

from fluxwerk import drive
from fluxwerk.client.slots import ClientSlots, SlotClaim
from fluxwerk.client.wakeup import Wakeup
from fluxwerk.drive import Clock, Exchange, Listen, Steps, Wait
from fluxwerk.errors import (
    ConnectionFailedError,
    FluxwerkError,
    InDoubtError,
    RateLimitError,
    TaskTimeoutError,
    TransportError,
)
from fluxwerk.protocol import flow, retry
from fluxwerk.types import Event, Flow, HttpRequest, Json, OnEvent, Pool, Response, Task

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")
TOO_MANY_REQUESTS = 429

log = logging.getLogger("fluxwerk.client.session")


class WebhookListener(Protocol):
    """Where webhooks come in: a `fluxwerk.webhook.Receiver`, or anything else that notifies of a task's end."""

    @property
    def wakeup(self) -> Wakeup:
        """What is notified when a webhook has come."""
        ...

    @property
    def options(self) -> Mapping[str, Json]:
        """What a submit has to say so that its webhook comes here."""
        ...

    def expect(self, task: Task) -> None:
        """Take note of a task that was submitted."""
        ...


class Switch(Protocol):
    """What may end a session from outside: of the many images of `generate_many`, or the client that is closed."""

    @property
    def may_buy(self) -> bool:
        """Whether a submit may leave."""
        ...

    @property
    def may_send(self) -> bool:
        """Whether anything may leave."""
        ...

    @property
    def reason(self) -> str:
        """Why no submit may leave, as a sentence."""
        ...

    def stop_buying(self) -> None:
        """Let no further submit leave."""
        ...


class AlwaysOn:
    """The switch of a session that runs to its end."""

    may_buy = may_send = True
    reason = ""

    def stop_buying(self) -> None:
        """Change nothing: a session on its own has no further submits."""


ALWAYS_ON = AlwaysOn()


class Session:
    """One drive of a flow: reports what happens, and holds the slot of the task that comes of it.

    The slots follow from HTTP answers and from what flows return; events are for observers alone.
    """

    def __init__(
        self,
        base: str,
        clock: Clock,
        slots: ClientSlots,
        on_event: OnEvent,
        webhook: WebhookListener | None = None,
        task: Task | None = None,
        switch: Switch = ALWAYS_ON,
    ) -> None:
        self._base = base
        self._clock = clock
        self._slots = slots
        self._on_event = on_event
        self._webhook = webhook
        self._switch = switch
        self._began = clock.now()
        # The task that comes of it, as soon as it is known.
        self.task = task
        self._stop: Callable[[], object] | None = None
        # What a submit that is on its way holds; its answer turns it into a task's slot or gives it back.
        self.claim: SlotClaim | None = None
        # Whether a submit has left whose answer did not come: then nothing may say that nothing was sent.
        self._is_in_doubt = False

    def steps(self, flow: Flow[T], deadline: float | None) -> Steps[T]:
        """Turn a flow into steps: a submit waits for its slot, and a webhook ends the pauses that may end early."""
        return drive.steps(flow, deadline, self._clock, self._ask, self._listen)

    def report(self, event: Event) -> None:
        """Pass an event on to the observer, with its seconds; an observer that fails changes nothing else."""
        seconds = self._clock.now() - self._began
        timed = Event(event.kind, event.task, event.attempt, event.status, event.reason, seconds)
        log.debug("%s %s", timed.kind, timed.task.id if timed.task else timed.reason)
        try:
            self._on_event(timed)
        except Exception:
            # What is under way may be paid for, so it goes on.
            log.exception("on_event raised an exception at %r; the request goes on", timed.kind)

    def submitted(self, task: Task) -> None:
        """Let the task that a submit has become keep its slot."""
        self.task = task
        if self._webhook:
            self._webhook.expect(task)
        if self.claim:
            self._slots.hold(self.claim, task)
            self.claim = None
        self._settled()

    @property
    def may_buy(self) -> bool:
        """Whether a submit may leave, or leave again."""
        return self._switch.may_buy

    def cleared(self) -> None:
        """Note that what was in doubt was not taken: its slot serves the next submit."""
        self._is_in_doubt = False

    def stop_buying(self) -> None:
        """Let no further submit leave of the many that this one belongs to."""
        self._switch.stop_buying()

    def ended(self, task: Task) -> None:
        """Free the slot of a task that a poll has shown to be over."""
        self._slots.ended(task)

    def abandon(self, stop: Callable[[], object]) -> bool:
        """Stop: at once, or as soon as the submit that is on its way has been answered.

        Returns whether there is such a submit.  Its task is reported, and holds its slot.
        """
        if self.claim is None:
            stop()
            return False
        self._stop = stop
        return True

    def _listen(self) -> Listen | None:
        return self._webhook.wakeup.listen(self.task.id) if self._webhook and self.task else None

    def _ask(self, request: HttpRequest, budget: float | None) -> Steps[Response]:
        if request.pool is None:
            if not self._switch.may_send:
                raise self._closed_now()
            response = yield Exchange(request, budget)
            assert response is not None
            return response
        until = inf if budget is None else self._clock.now() + budget
        yield from self._hold_slot(request.pool, until)
        left = None if budget is None else until - self._clock.now()
        try:
            response = yield from drive.ask(request, left)
        except ConnectionFailedError:
            # It never left: its slot is asked for anew, unless one before it did leave.
            if not self._is_in_doubt:
                self._give_back()
            raise
        except TransportError:
            self._is_in_doubt = True
            raise
        if response.status not in flow.OK:
            self._refused(response)
        return response

    def not_bought(self, proof: str = "Nothing was sent.") -> FluxwerkError:
        """Make the error of a submit that does not leave, or not again, because its image is not wanted any more."""
        return TaskTimeoutError(f"{self._switch.reason} {proof}")

    def _closed_now(self) -> FluxwerkError:
        if self._is_in_doubt:
            return ConnectionFailedError("the client was closed", permanent=True)
        return TaskTimeoutError("The client was closed before the image was there.", task=self.task)

    def _hold_slot(self, pool: Pool, until: float) -> Steps[None]:
        """Wait for a slot; a submit that is sent again still holds the one that it left with."""
        if self._is_in_doubt and not self._switch.may_send:
            raise self._closed_now()
        if self.claim:
            return
        try:
            self.claim = yield from self._take_slot(pool, until)
        except FluxwerkError as missing:
            if self._is_in_doubt:
                raise ConnectionFailedError(str(missing), permanent=True) from missing
            raise

    def _take_slot(self, pool: Pool, until: float) -> Steps[SlotClaim]:
        claim, began = self._slots.ask(pool, until=until), self._clock.now()
        try:
            while self._switch.may_buy and not claim.granted:
                timeout = self._slots.next_timeout(claim)
                if timeout is None:
                    raise self._no_slot(pool, self._clock.now() - began)
                yield Wait(timeout, claim.listen)
                if not claim.granted:
                    yield from self._look_around(pool, until)
            if not self._switch.may_buy:
                raise self.not_bought()
        except BaseException:
            self._slots.give_back(claim)
            raise
        return claim

    def _look_around(self, pool: Pool, until: float) -> Steps[None]:
        """Poll a task that the client left: if it has ended, its slot is free."""
        task = self._slots.unattended(pool)
        if task:
            look = flow.glance(task, self._base)
            self._slots.looked(task, (yield from drive.steps(look, until, self._clock)))
        self._slots.nudge(pool)

    def _no_slot(self, pool: Pool, waited: float) -> FluxwerkError:
        cool_down, most = self._slots.cool_down(pool), self._slots.most(pool)
        if cool_down is None:
            return TaskTimeoutError(
                f"No slot became free in {waited:.3g} s. Slots in the pool {pool.name!r}: {most}, each held by a task "
                "in flight or by a submit before this one. Nothing was sent. Give a longer timeout, or wait for some "
                "of the tasks first."
            )
        asked = cool_down.asked
        pause = f" and asked for a pause until {drive.time_of_day(asked)}" if asked is not None else ""
        return RateLimitError(
            f"The service is too busy: it refused a submit{pause}. The next submit leaves in {cool_down.left:.3g} s, "
            "which is after the deadline of this call. Nothing was sent. Call again then, or give a longer timeout.",
            status=TOO_MANY_REQUESTS,
            retry_after=cool_down.left,
        )

    def _refused(self, response: Response) -> None:
        """Give the slot back after a submit that was refused; one that is too busy cools the whole pool down."""
        asked = retry.retry_after(response.headers)
        if response.status in flow.BUSY:
            self._give_back(retry.FIRST_BACKOFF if asked is None else asked, asked)
        elif response.status in flow.SERVER_ERRORS:
            # Its task may be running.
            self._is_in_doubt = True
        else:
            self._give_back()

    def _give_back(self, cool: float | None = None, asked: float | None = None) -> None:
        assert self.claim is not None
        self._slots.give_back(self.claim, cool, asked)
        self.claim = None
        self._settled()

    def _settled(self) -> None:
        if self._stop:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if self.claim:
            self._slots.give_back(self.claim)
            if error and not isinstance(error, FluxwerkError):
                self._tell_doubt(error)
        if self.task:
            self._slots.leave(self.task)
        if isinstance(error, InDoubtError) and self._stop:
            # The caller has left, and it is about money.
            log.warning("%s", error)
        if isinstance(error, FluxwerkError):
            self.report(Event("failed", error.task, reason=f"{type(error).__name__}: {error}"))

    def _tell_doubt(self, cut: BaseException) -> None:
        """Report what an interruption would hide: a submit had left when it came."""
        doubt = f"A submit had left and may have been charged; its answer was cut off ({type(cut).__name__}). "
        doubt += "Look at your account's usage before you send it again."
        cut.add_note(doubt)
        log.warning("%s", doubt)
        self.report(Event("failed", reason=f"InDoubtError: {doubt}"))
