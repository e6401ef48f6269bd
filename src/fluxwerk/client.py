"""`Client` and `AsyncClient`: the same words, driven in this thread or on an event loop."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from fluxwerk import catalog, pricing, redaction, seam
from fluxwerk.access import open_access
from fluxwerk.catalog import Model
from fluxwerk.conversation import Conversation, Hooks
from fluxwerk.drive import WALL, Clock, drive, drive_async
from fluxwerk.errors import Misused, TimedOut, Unreachable
from fluxwerk.exchange import (
    Flow,
    HttpRequest,
    Pool,
    Request,
    Response,
    Status,
    Task,
    Tell,
    silence,
)
from fluxwerk.experience import Experience, shared
from fluxwerk.image import Image, develop
from fluxwerk.input import Wanted, compose
from fluxwerk.protocol import flow, patience
from fluxwerk.series import Made, Series, may_buy, may_send
from fluxwerk.slots import Seat, Slots

if TYPE_CHECKING:
    import asyncio
    from typing import Self, Unpack

    import httpx2

T = TypeVar("T")
DEFAULT_MODEL = "flux-2-pro"
# Large images at 50 steps take minutes when the service is busy.
PATIENCE = 600.0
NOT_OPTIONS = frozenset({"model", "images", "extra", "timeout"})
TOO_MANY = 429
# While it waits for a slot, a submit looks this often whether a task that nobody waits for has ended.
LOOK_AROUND = 1.0
# For so many seconds a client that is closed waits for the answers to its submits.
LINGER = 20.0
# `generate_many` carries so many requests beyond the slots, or half as many as those: some are prepared and wait for a
# slot, some have left theirs and are downloaded.
SLOTS, AHEAD = 24, 16


class Words:
    """What both clients say in the same way: everything but driving."""

    def __init__(
        self,
        api_key: str | None,
        region: str | None,
        base_url: str | None,
        timeout: float,
        on_event: Tell,
        slots: int | None = None,
        webhook: Hooks | None = None,
        clock: Clock = WALL,
        experience: Experience | None = None,
    ) -> None:
        self.webhook = webhook
        self.experience = experience or shared()
        self.access = open_access(api_key, region, base_url)
        self.timeout = timeout
        self.on_event = on_event
        self.clock = clock
        if slots is not None and slots < 1:
            raise Misused(f"slots = {slots}: at least one task must be allowed in flight.")
        self.slots = Slots(clock.now, slots)
        self._at_a_time = (slots or SLOTS) + max(AHEAD, (slots or SLOTS) // 2)
        self._closed = threading.Event()
        redaction.keep_urls_out_of_logs()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.access.base!r})"

    def request(self, prompt: str | None = None, **wanted: Unpack[Wanted]) -> Request:
        """Build and check a request without sending anything; raises `Misused` with every fault."""
        return _compose(prompt, wanted)[1]

    def estimate(
        self,
        model: str | Model = DEFAULT_MODEL,
        width: int | None = None,
        height: int | None = None,
        inputs: Sequence[tuple[int, int]] = (),
    ) -> Decimal:
        """Estimate one image in credits without asking the service; raises `UnknownPrice`."""
        return pricing.estimate(model, width, height, inputs)

    def _generating(self, tell: Tell, prompt: str | Request | None, wanted: Wanted) -> Flow[Image]:
        task = yield from self._submitting(tell, prompt, wanted)
        return (yield from self._downloading(tell, task, 0.0))

    def _submitting(self, tell: Tell, prompt: str | Request | None, wanted: Wanted) -> Flow[Task]:
        model, request = _compose(prompt, wanted)
        if self.webhook and (not model.options or "webhook_url" in model.options):
            request = replace(request, fields={**self.webhook.options, **request.fields})
        return flow.submit(model, request, self.access.base, tell, self.access.others)

    def _waiting(self, tell: Tell, task: Task, age: float | None = None) -> Flow[Status]:
        plan = self.experience.plan(
            task,
            self.clock.now,
            self.slots.age(task) if age is None else age,
            crowded=lambda: self.slots.is_crowded(task),
            hooked=self.webhook is not None,
        )
        return flow.wait(task, self.access.base, tell, plan)

    def _downloading(self, tell: Tell, ready: Status | Task, age: float | None = None) -> Flow[Image]:
        status = (yield from self._waiting(tell, ready, age)) if isinstance(ready, Task) else ready
        return develop(status, (yield from flow.download(status, self.access.base, tell)))

    def _heard(self, request: HttpRequest, response: Response) -> Response:
        """Pass an answer on; a poll that is refused speaks for all of them."""
        if response.status == TOO_MANY and request.method == "GET" and request.keyed:
            asked = patience.retry_after(response.headers) or patience.FIRST_BACKOFF
            self.experience.refused(self.clock.now(), min(asked, patience.LONGEST_RETRY_AFTER))
        return response

    def _conversation(self, task: Task | None) -> Conversation:
        return Conversation(self.clock, self.slots, self.on_event, self.webhook, task)

    def _series(self, requests: object) -> Series:
        if isinstance(requests, str | Request):
            raise Misused("Many are asked for, and one was given: put brackets around it.")
        return Series(self._at_a_time, self._closed)

    def _no_slot(self, pool: Pool) -> TimedOut:
        if not may_buy():
            return TimedOut("Nobody listens any more, or the client was closed. Nothing was sent.")
        most = self.slots.most(pool)
        return TimedOut(f"No slot became free: of {pool.name} {most} may be in flight at once. Nothing was sent.")

    def _settle(self, wake: Callable[[], object]) -> None:
        """Let the series under way send nothing more, and call `wake` once no submit is on its way."""
        closed, self._closed = self._closed, threading.Event()
        closed.set()
        self.slots.settle(wake)

    def _deadline(self, timeout: float | None) -> float:
        return self.clock.now() + (self.timeout if timeout is None else timeout)


class Client(Words):
    """The blocking client; safe to share between threads.

    `timeout` is the deadline in seconds for everything a method does.  `on_event` hears what happens on the way.
    `slots` replaces the catalogue's number of tasks in flight, for a server of your own.  `webhook` is where webhooks
    come in: then polls are few, and a webhook that is lost, forged or late changes nothing but speed.  `http_client`
    is your own httpx2 client, with its proxies and certificates.  `experience` knows how long tasks take; by default
    it is one for all clients of this user.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        region: str | None = None,
        base_url: str | None = None,
        timeout: float = PATIENCE,
        on_event: Tell = silence,
        slots: int | None = None,
        webhook: Hooks | None = None,
        http_client: httpx2.Client | None = None,
        experience: Experience | None = None,
    ) -> None:
        super().__init__(api_key, region, base_url, timeout, on_event, slots, webhook, experience=experience)
        self._line = seam.open_line(http_client)

    def generate(self, prompt: str | Request | None = None, **wanted: Unpack[Wanted]) -> Image:
        """Submit, wait and download: one paid image, from a prompt with options or from a request made before."""
        return self._drive(lambda tell: self._generating(tell, prompt, wanted), wanted.get("timeout"))

    def generate_many(self, requests: Iterable[Request | str], **wanted: Unpack[Wanted]) -> Iterator[Made]:
        """Make many images at once and yield each as it finishes, with its request; one failure stops no other.

        `requests` are requests or prompts, which share the options given here.  They are read as slots become free, so
        there may be endlessly many.  Whoever stops listening lets what is in flight finish unseen, until the client is
        closed.
        """
        series = self._series(requests)
        return series.on_threads(lambda one: self.generate(one, **of_each(one, wanted)), requests)

    def submit(self, prompt: str | Request | None = None, **wanted: Unpack[Wanted]) -> Task:
        """Ask for one image and return its task, a plain value to store; raises `InDoubt` if nobody answered."""
        return self._drive(lambda tell: self._submitting(tell, prompt, wanted), wanted.get("timeout"))

    def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        """Poll until the task is ready; raises how it ended otherwise, and `TimedOut` with the task."""
        return self._drive(lambda tell: self._waiting(tell, task), timeout, task)

    def download(self, ready: Status | Task, *, timeout: float | None = None) -> Image:
        """Fetch the image of a ready task; a bare task is waited for first."""
        return self._drive(lambda tell: self._downloading(tell, ready), timeout, _task_of(ready))

    def credits(self, *, timeout: float | None = None) -> Decimal:
        """Ask for the account's balance in credits."""
        return self._drive(lambda _: flow.ask_credits(self.access.base), timeout)

    def close(self) -> None:
        """Close the connections, unless they are those of a client that was handed in.

        Submits that have left are paid for, so their answers are waited for; polls and downloads are cut off.
        """
        settled = threading.Event()
        self._settle(settled.set)
        settled.wait(LINGER)
        self.experience.save()
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, request: HttpRequest, budget: float | None = None) -> Response:
        """Carry one HTTP request, for whoever drives flows step by step; `budget` in seconds; raises `Lost`."""
        return self._heard(request, self._line.send(self.access, request, budget))

    def _drive(self, begin: Callable[[Tell], Flow[T]], timeout: float | None, task: Task | None = None) -> T:
        with self._conversation(task) as talk:
            deadline = self._deadline(timeout)
            return drive(begin(talk.tell), lambda request, left: self._send(talk, request, left), deadline, talk.clock)

    def _send(self, talk: Conversation, request: HttpRequest, budget: float | None) -> Response:
        if request.pool is None:
            _check_open(talk)
            return self.send(request, budget)
        began = self.clock.now()
        talk.seat = self._take_seat(request.pool, budget)
        left = None if budget is None else budget - (self.clock.now() - began)
        try:
            response = self.send(request, left)
        except Unreachable:
            talk.withdraw()
            raise
        talk.answered(response)
        return response

    def _take_seat(self, pool: Pool, budget: float | None) -> Seat:
        granted = threading.Event()
        seat = self.slots.ask(pool, granted.set)
        until = None if budget is None else self.clock.now() + budget
        try:
            while not seat.granted:
                left = LOOK_AROUND if until is None else until - self.clock.now()
                if left <= 0 or not may_buy():
                    raise self._no_slot(pool)
                if not granted.wait(min(left, LOOK_AROUND)):
                    self._look_around(pool, left)
            if not may_buy():
                raise self._no_slot(pool)
        except BaseException:
            self.slots.give_back(seat)
            raise
        return seat

    def _look_around(self, pool: Pool, left: float) -> None:
        task = self.slots.unattended(pool)
        if task:
            look = flow.glance(task, self.access.base)
            self.slots.looked(task, drive(look, self.send, self.clock.now() + left, self.clock))
        self.slots.nudge(pool)


class AsyncClient(Words):
    """The asyncio client, with the same words as `Client`; it may outlive an event loop, and serve several at once."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        region: str | None = None,
        base_url: str | None = None,
        timeout: float = PATIENCE,
        on_event: Tell = silence,
        slots: int | None = None,
        webhook: Hooks | None = None,
        http_client: httpx2.AsyncClient | None = None,
        experience: Experience | None = None,
    ) -> None:
        super().__init__(api_key, region, base_url, timeout, on_event, slots, webhook, experience=experience)
        self._lent = http_client
        self._opened: dict[asyncio.AbstractEventLoop, tuple[seam.AsyncLine, AsyncGenerator[seam.AsyncLine]]] = {}
        self._abandoned: set[asyncio.Future[Any]] = set()

    async def generate(self, prompt: str | Request | None = None, **wanted: Unpack[Wanted]) -> Image:
        """Submit, wait and download: one paid image, from a prompt with options or from a request made before."""
        return await self._drive(lambda tell: self._generating(tell, prompt, wanted), wanted.get("timeout"))

    def generate_many(self, requests: Iterable[Request | str], **wanted: Unpack[Wanted]) -> AsyncIterator[Made]:
        """Make many images at once and yield each as it finishes, with its request; one failure stops no other.

        `requests` are requests or prompts, which share the options given here.  They are read as slots become free, so
        there may be endlessly many.  Closing the iterator cancels the waiting, not the tasks.  A submit that has left
        is paid for: as with any coroutine that is cancelled, its answer is read all the same and its task told.
        """
        series = self._series(requests)
        return series.on_loop(lambda one: self.generate(one, **of_each(one, wanted)), requests)

    async def submit(self, prompt: str | Request | None = None, **wanted: Unpack[Wanted]) -> Task:
        """Ask for one image and return its task, a plain value to store; raises `InDoubt` if nobody answered."""
        return await self._drive(lambda tell: self._submitting(tell, prompt, wanted), wanted.get("timeout"))

    async def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        """Poll until the task is ready; raises how it ended otherwise, and `TimedOut` with the task."""
        return await self._drive(lambda tell: self._waiting(tell, task), timeout, task)

    async def download(self, ready: Status | Task, *, timeout: float | None = None) -> Image:
        """Fetch the image of a ready task; a bare task is waited for first."""
        return await self._drive(lambda tell: self._downloading(tell, ready), timeout, _task_of(ready))

    async def credits(self, *, timeout: float | None = None) -> Decimal:
        """Ask for the account's balance in credits."""
        return await self._drive(lambda _: flow.ask_credits(self.access.base), timeout)

    async def close(self) -> None:
        """Close the connections, unless they are those of a client that was handed in.

        Submits that have left are paid for, so their answers are waited for; polls and downloads are cut off.
        """
        import asyncio  # noqa: PLC0415

        settled, loop = asyncio.Event(), asyncio.get_running_loop()
        self._settle(lambda: loop.call_soon_threadsafe(settled.set))
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await settled.wait()
        self.experience.save()
        opened = self._opened.pop(loop, None)
        if opened:
            await opened[1].aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, request: HttpRequest, budget: float | None = None) -> Response:
        """Carry one HTTP request, for whoever drives flows step by step; `budget` in seconds; raises `Lost`."""
        return self._heard(request, await (await self._open()).send(self.access, request, budget))

    async def _drive(self, begin: Callable[[Tell], Flow[T]], timeout: float | None, task: Task | None = None) -> T:
        import asyncio  # noqa: PLC0415

        talk = self._conversation(task)
        driving = asyncio.ensure_future(self._converse(talk, begin, self._deadline(timeout)))
        try:
            return await asyncio.shield(driving)
        except asyncio.CancelledError:
            if talk.abandon(driving.cancel):
                # A loop does not keep its coroutines alive, and this one hears of a task that is paid for.
                self._abandoned.add(driving)
                driving.add_done_callback(self._forget)
            else:
                await asyncio.wait({driving})
            raise

    def _forget(self, driving: asyncio.Future[Any]) -> None:
        self._abandoned.discard(driving)
        if not driving.cancelled():
            # It was told and logged; asked for, it is no complaint of the event loop.
            driving.exception()

    async def _converse(self, talk: Conversation, begin: Callable[[Tell], Flow[T]], deadline: float) -> T:
        async def send(request: HttpRequest, left: float | None) -> Response:
            return await self._send(talk, request, left)

        with talk:
            return await drive_async(begin(talk.tell), send, deadline, talk.clock)

    async def _send(self, talk: Conversation, request: HttpRequest, budget: float | None) -> Response:
        if request.pool is None:
            _check_open(talk)
            return await self.send(request, budget)
        began = self.clock.now()
        talk.seat = await self._take_seat(request.pool, budget)
        left = None if budget is None else budget - (self.clock.now() - began)
        try:
            response = await self.send(request, left)
        except Unreachable:
            talk.withdraw()
            raise
        talk.answered(response)
        return response

    async def _take_seat(self, pool: Pool, budget: float | None) -> Seat:
        import asyncio  # noqa: PLC0415

        granted, loop = asyncio.Event(), asyncio.get_running_loop()
        seat = self.slots.ask(pool, lambda: loop.call_soon_threadsafe(granted.set))
        until = None if budget is None else self.clock.now() + budget
        try:
            while not seat.granted:
                left = LOOK_AROUND if until is None else until - self.clock.now()
                if left <= 0 or not may_buy():
                    raise self._no_slot(pool)
                try:
                    async with asyncio.timeout(min(left, LOOK_AROUND)):
                        await granted.wait()
                except TimeoutError:
                    await self._look_around(pool, left)
            if not may_buy():
                raise self._no_slot(pool)
        except BaseException:
            self.slots.give_back(seat)
            raise
        return seat

    async def _look_around(self, pool: Pool, left: float) -> None:
        task = self.slots.unattended(pool)
        if task:
            look = flow.glance(task, self.access.base)
            self.slots.looked(task, await drive_async(look, self.send, self.clock.now() + left, self.clock))
        self.slots.nudge(pool)

    async def _open(self) -> seam.AsyncLine:
        """Find the connections of this event loop: a pool belongs to the loop it was opened on."""
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            for ended in [other for other in list(self._opened) if other.is_closed()]:
                self._opened.pop(ended, None)
            holding = _hold(self._lent)
            self._opened[loop] = await anext(holding), holding
        return self._opened[loop][0]


async def _hold(lent: httpx2.AsyncClient | None) -> AsyncGenerator[seam.AsyncLine]:
    """Hold connections open until closed; a loop that ends closes its generators, and so these, by itself."""
    line = seam.open_async_line(lent)
    try:
        yield line
    finally:
        await line.close()


def _compose(prompt: str | Request | None, wanted: Wanted) -> tuple[Model, Request]:
    options = {name: value for name, value in wanted.items() if name not in NOT_OPTIONS}
    images, extra = wanted.get("images", ()), wanted.get("extra")
    if not isinstance(prompt, Request):
        model = catalog.find(wanted.get("model", DEFAULT_MODEL))
        return model, compose(model, prompt, images=images, options=options, extra=extra)
    if options or images or extra:
        raise Misused(f"A request is complete: give {', '.join(options) or 'images and extra'} when it is made.")
    return catalog.find(wanted.get("model", prompt.model)), prompt


def _task_of(ready: Status | Task) -> Task:
    return ready if isinstance(ready, Task) else ready.task


def of_each(request: Request | str, wanted: Wanted) -> Wanted:
    """Take from the options of many what goes with this one: a request has its own."""
    if isinstance(request, str):
        return wanted
    mine = Wanted()
    if "timeout" in wanted:
        mine["timeout"] = wanted["timeout"]
    model = wanted.get("model")
    if isinstance(model, Model) and model.name == request.model:
        mine["model"] = model
    return mine


def _check_open(talk: Conversation) -> None:
    if not may_send():
        raise TimedOut("The client was closed before the image was there.", task=talk.task)
