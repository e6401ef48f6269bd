"""`Client` and `AsyncClient`: the same words, driven in this thread or on an event loop."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from fluxwerk.client import transport
from fluxwerk.client.base import BaseClient, of_each
from fluxwerk.client.image import Image
from fluxwerk.client.inputs import RequestOptions
from fluxwerk.client.many import Result, may_buy, may_send
from fluxwerk.client.session import Session, WebhookListener
from fluxwerk.client.slots import SlotClaim
from fluxwerk.drive import drive, drive_async
from fluxwerk.errors import ConnectionFailedError, TaskTimeoutError
from fluxwerk.polling.history import PollingHistory
from fluxwerk.protocol import flow
from fluxwerk.types import Flow, HttpRequest, Pool, Request, Response, Status, Task, Tell, silence

if TYPE_CHECKING:
    import asyncio
    from typing import Self, Unpack

    import httpx2

T = TypeVar("T")
# Large images at 50 steps take minutes when the service is busy.
PATIENCE = 600.0
# While it waits for a slot, a submit looks this often whether a task that nobody waits for has ended.
LOOK_AROUND = 1.0
# For so many seconds a client that is closed waits for the answers to its submits.
LINGER = 20.0


class Client(BaseClient):
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
        webhook: WebhookListener | None = None,
        http_client: httpx2.Client | None = None,
        experience: PollingHistory | None = None,
    ) -> None:
        super().__init__(api_key, region, base_url, timeout, on_event, slots, webhook, experience=experience)
        self._line = transport.open_transport(http_client)

    def generate(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Image:
        """Submit, wait and download: one paid image, from a prompt with options or from a request made before."""
        return self._drive(lambda tell: self._generating(tell, prompt, wanted), wanted.get("timeout"))

    def generate_many(self, requests: Iterable[Request | str], **wanted: Unpack[RequestOptions]) -> Iterator[Result]:
        """Make many images at once and yield each as it finishes, with its request; one failure stops no other.

        `requests` are requests or prompts, which share the options given here.  They are read as slots become free, so
        there may be endlessly many.  Whoever stops listening lets what is in flight finish unseen, until the client is
        closed.
        """
        series = self._series(requests)
        return series.on_threads(lambda one: self.generate(one, **of_each(one, wanted)), requests)

    def submit(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Task:
        """Ask for one image and return its task, a plain value to store; raises `InDoubtError` if nobody answered."""
        return self._drive(lambda tell: self._submitting(tell, prompt, wanted), wanted.get("timeout"))

    def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        """Poll until the task is ready; raises how it ended otherwise, and `TaskTimeoutError` with the task."""
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

    def _send(self, talk: Session, request: HttpRequest, budget: float | None) -> Response:
        if request.pool is None:
            _check_open(talk)
            return self.send(request, budget)
        began = self.clock.now()
        talk.seat = self._take_seat(request.pool, budget)
        left = None if budget is None else budget - (self.clock.now() - began)
        try:
            response = self.send(request, left)
        except ConnectionFailedError:
            talk.withdraw()
            raise
        talk.answered(response)
        return response

    def _take_seat(self, pool: Pool, budget: float | None) -> SlotClaim:
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


class AsyncClient(BaseClient):
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
        webhook: WebhookListener | None = None,
        http_client: httpx2.AsyncClient | None = None,
        experience: PollingHistory | None = None,
    ) -> None:
        super().__init__(api_key, region, base_url, timeout, on_event, slots, webhook, experience=experience)
        self._lent = http_client
        self._opened: dict[
            asyncio.AbstractEventLoop, tuple[transport.AsyncTransport, AsyncGenerator[transport.AsyncTransport]]
        ] = {}
        self._abandoned: set[asyncio.Future[Any]] = set()

    async def generate(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Image:
        """Submit, wait and download: one paid image, from a prompt with options or from a request made before."""
        return await self._drive(lambda tell: self._generating(tell, prompt, wanted), wanted.get("timeout"))

    def generate_many(
        self, requests: Iterable[Request | str], **wanted: Unpack[RequestOptions]
    ) -> AsyncIterator[Result]:
        """Make many images at once and yield each as it finishes, with its request; one failure stops no other.

        `requests` are requests or prompts, which share the options given here.  They are read as slots become free, so
        there may be endlessly many.  Closing the iterator cancels the waiting, not the tasks.  A submit that has left
        is paid for: as with any coroutine that is cancelled, its answer is read all the same and its task told.
        """
        series = self._series(requests)
        return series.on_loop(lambda one: self.generate(one, **of_each(one, wanted)), requests)

    async def submit(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Task:
        """Ask for one image and return its task, a plain value to store; raises `InDoubtError` if nobody answered."""
        return await self._drive(lambda tell: self._submitting(tell, prompt, wanted), wanted.get("timeout"))

    async def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        """Poll until the task is ready; raises how it ended otherwise, and `TaskTimeoutError` with the task."""
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

    async def _converse(self, talk: Session, begin: Callable[[Tell], Flow[T]], deadline: float) -> T:
        async def send(request: HttpRequest, left: float | None) -> Response:
            return await self._send(talk, request, left)

        with talk:
            return await drive_async(begin(talk.tell), send, deadline, talk.clock)

    async def _send(self, talk: Session, request: HttpRequest, budget: float | None) -> Response:
        if request.pool is None:
            _check_open(talk)
            return await self.send(request, budget)
        began = self.clock.now()
        talk.seat = await self._take_seat(request.pool, budget)
        left = None if budget is None else budget - (self.clock.now() - began)
        try:
            response = await self.send(request, left)
        except ConnectionFailedError:
            talk.withdraw()
            raise
        talk.answered(response)
        return response

    async def _take_seat(self, pool: Pool, budget: float | None) -> SlotClaim:
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

    async def _open(self) -> transport.AsyncTransport:
        """Find the connections of this event loop: a pool belongs to the loop it was opened on."""
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            for ended in [other for other in list(self._opened) if other.is_closed()]:
                self._opened.pop(ended, None)
            holding = _hold(self._lent)
            self._opened[loop] = await anext(holding), holding
        return self._opened[loop][0]


async def _hold(lent: httpx2.AsyncClient | None) -> AsyncGenerator[transport.AsyncTransport]:
    """Hold connections open until closed; a loop that ends closes its generators, and so these, by itself."""
    line = transport.open_async_transport(lent)
    try:
        yield line
    finally:
        await line.close()


def _task_of(ready: Status | Task) -> Task:
    return ready if isinstance(ready, Task) else ready.task


def _check_open(talk: Session) -> None:
    if not may_send():
        raise TaskTimeoutError("The client was closed before the image was there.", task=talk.task)
