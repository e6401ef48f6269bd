"""`Client` and `AsyncClient`: the same methods, driven in this thread or on an event loop."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sized
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fluxwerk.client import transport as transports
from fluxwerk.client.base import BaseClient, Begin, by_model, of_each
from fluxwerk.client.books import SettledDoubt
from fluxwerk.client.gallery import Gallery
from fluxwerk.client.image import Image
from fluxwerk.client.inputs import RequestOptions
from fluxwerk.client.many import Result
from fluxwerk.client.session import ALWAYS_ON, Session, Switch, WebhookListener
from fluxwerk.drive import WALL, Clock, run, run_async
from fluxwerk.errors import InDoubtError, InvalidUsageError
from fluxwerk.polling.history import PollingHistory
from fluxwerk.protocol import flow
from fluxwerk.types import HttpRequest, OnEvent, Request, Response, Status, Task, ignore_event

if TYPE_CHECKING:
    import asyncio
    from typing import Self, Unpack

    import httpx2

T = TypeVar("T")
# Seconds: large images at 50 steps take minutes when the service is busy.
DEFAULT_TIMEOUT = 600.0
# A client that is closed waits up to this many seconds for the answers to its submits.
LINGER = 20.0


class Client(BaseClient):
    """The blocking client; safe to share between threads.

    `timeout` is the deadline in seconds for everything a method does.  `on_event` is called with what happens on the
    way.  `slots` replaces the catalogue's number of tasks in flight, for a server of your own.  `webhook` is where
    webhooks come in: then polls are few, and a webhook that is lost, forged or late changes nothing but speed.
    `http_client` is your own httpx2 client, with its proxies and certificates; `transport` replaces the network
    altogether, and is closed with the client.  `history` knows how long tasks take: by default all clients of the
    process share one in memory, which is kept in a file only if FLUXWERK_CACHE names its folder.  `clock` is for tests.
    `delivery_hosts` may deliver images by plain http: hosts beside a server of your own whose base URL is plain http.
    `account="exclusive"` promises that nobody else uses or tops up the account: then its balance settles doubts.
    `on_doubt` says what to do about a submit that was not answered: "settle" it if there is evidence, "stop" with
    `InDoubtError` at once and let a `generate_many` submit nothing more, or "resubmit" it once and perhaps pay twice.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        region: str | None = None,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        on_event: OnEvent = ignore_event,
        slots: int | None = None,
        webhook: WebhookListener | None = None,
        http_client: httpx2.Client | None = None,
        transport: transports.Transport | None = None,
        history: PollingHistory | None = None,
        clock: Clock = WALL,
        delivery_hosts: Iterable[str] = (),
        account: Literal["shared", "exclusive"] = "shared",
        on_doubt: Literal["stop", "settle", "resubmit"] = "settle",
    ) -> None:
        super().__init__(
            api_key,
            region,
            base_url,
            timeout,
            on_event,
            slots,
            webhook,
            history,
            clock,
            delivery_hosts,
            account,
            on_doubt,
        )
        _check_either(http_client, transport)
        self._transport = transport or transports.open_transport(http_client)

    @by_model
    def generate(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Image:
        """Submit, wait and download: one paid image, from a prompt with options or from a request made before."""
        return self._drive(lambda session: self._generating(session, prompt, wanted), wanted.get("timeout"))

    def generate_many(self, requests: Iterable[Request | str], **wanted: Unpack[RequestOptions]) -> Gallery:
        """Make many images at once and yield each as it finishes, with its request; one failure stops no other.

        `requests` are requests or prompts, which share the options given here.  They are read as slots become free, so
        there may be endlessly many.  When the iterator is closed, what is in flight finishes unseen, until the client
        is closed.  In a notebook the iterator, as the last line of a cell, shows the images as they are made.
        """
        many = self._many(requests)

        def make(one: Request | str) -> Image:
            begin = self._beginning(one, of_each(one, wanted))
            return self._drive(begin, wanted.get("timeout"), switch=many)

        return Gallery(many.on_threads(make, requests), len(requests) if isinstance(requests, Sized) else None)

    @by_model
    def submit(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Task:
        """Ask for one image and return its task, a plain value to store; raises `InDoubtError` if no answer came."""
        return self._drive(lambda session: self._submitting(session, prompt, wanted), wanted.get("timeout"))

    def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        """Poll until the task is ready; raises how it ended otherwise, and `TaskTimeoutError` with the task."""
        return self._drive(lambda session: self._waiting(session, task), timeout, task)

    def download(self, ready: Status | Task, *, timeout: float | None = None) -> Image:
        """Fetch the image of a ready task; a bare task is waited for first."""
        return self._drive(lambda session: self._downloading(session, ready), timeout, _task_of(ready))

    def settle(self, doubt: InDoubtError, *, timeout: float | None = None) -> SettledDoubt:
        """Look for evidence about a submit in doubt: the key that the server kept, then an exclusive account's balance.

        For the balance it waits until two minutes after the doubt, and until nothing else of this client is in flight.
        """
        return self._drive(lambda _: self._settling(doubt), timeout)

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
        self.history.save()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, request: HttpRequest, budget: float | None = None) -> Response:
        """Send one HTTP request, for code that drives flows itself; `budget` in seconds; raises `TransportError`."""
        return self._note(request, self._transport.send(self.access, request, budget))

    def _drive(self, begin: Begin[T], timeout: float | None, task: Task | None = None, switch: Switch = ALWAYS_ON) -> T:
        with self._session(task, switch) as session:
            return run(session.steps(begin(session), self._deadline(timeout)), self.send, self.clock)


class AsyncClient(BaseClient):
    """The asyncio client, with the same words as `Client`; it may outlive an event loop, and serve several at once."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        region: str | None = None,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        on_event: OnEvent = ignore_event,
        slots: int | None = None,
        webhook: WebhookListener | None = None,
        http_client: httpx2.AsyncClient | None = None,
        transport: transports.AsyncTransport | None = None,
        history: PollingHistory | None = None,
        clock: Clock = WALL,
        delivery_hosts: Iterable[str] = (),
        account: Literal["shared", "exclusive"] = "shared",
        on_doubt: Literal["stop", "settle", "resubmit"] = "settle",
    ) -> None:
        super().__init__(
            api_key,
            region,
            base_url,
            timeout,
            on_event,
            slots,
            webhook,
            history,
            clock,
            delivery_hosts,
            account,
            on_doubt,
        )
        _check_either(http_client, transport)
        self._http_client = http_client
        self._transport = transport
        self._opened: dict[
            asyncio.AbstractEventLoop, tuple[transports.AsyncTransport, AsyncGenerator[transports.AsyncTransport]]
        ] = {}
        self._abandoned: set[asyncio.Future[Any]] = set()

    @by_model
    async def generate(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Image:
        """Submit, wait and download: one paid image, from a prompt with options or from a request made before."""
        return await self._drive(lambda session: self._generating(session, prompt, wanted), wanted.get("timeout"))

    def generate_many(
        self, requests: Iterable[Request | str], **wanted: Unpack[RequestOptions]
    ) -> AsyncIterator[Result]:
        """Make many images at once and yield each as it finishes, with its request; one failure stops no other.

        `requests` are requests or prompts, which share the options given here.  They are read as slots become free, so
        there may be endlessly many.  Closing the iterator cancels the waiting, not the tasks.  A submit that has left
        is paid for: as with any coroutine that is cancelled, its answer is read all the same and its task reported.
        """
        many = self._many(requests)

        async def make(one: Request | str) -> Image:
            begin = self._beginning(one, of_each(one, wanted))
            return await self._drive(begin, wanted.get("timeout"), switch=many)

        return many.on_loop(make, requests)

    @by_model
    async def submit(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Task:
        """Ask for one image and return its task, a plain value to store; raises `InDoubtError` if no answer came."""
        return await self._drive(lambda session: self._submitting(session, prompt, wanted), wanted.get("timeout"))

    async def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        """Poll until the task is ready; raises how it ended otherwise, and `TaskTimeoutError` with the task."""
        return await self._drive(lambda session: self._waiting(session, task), timeout, task)

    async def download(self, ready: Status | Task, *, timeout: float | None = None) -> Image:
        """Fetch the image of a ready task; a bare task is waited for first."""
        return await self._drive(lambda session: self._downloading(session, ready), timeout, _task_of(ready))

    async def settle(self, doubt: InDoubtError, *, timeout: float | None = None) -> SettledDoubt:
        """Look for evidence about a submit in doubt, as `Client.settle` does."""
        return await self._drive(lambda _: self._settling(doubt), timeout)

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
        self.history.save()
        opened = self._opened.pop(loop, None)
        if opened:
            await opened[1].aclose()
        if self._transport:
            await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, request: HttpRequest, budget: float | None = None) -> Response:
        """Send one HTTP request, for code that drives flows itself; `budget` in seconds; raises `TransportError`."""
        return self._note(request, await (await self._open()).send(self.access, request, budget))

    async def _drive(
        self, begin: Begin[T], timeout: float | None, task: Task | None = None, switch: Switch = ALWAYS_ON
    ) -> T:
        import asyncio  # noqa: PLC0415

        session = self._session(task, switch)
        driving = asyncio.ensure_future(self._run(session, begin, self._deadline(timeout)))
        try:
            return await asyncio.shield(driving)
        except asyncio.CancelledError:
            if session.abandon(driving.cancel):
                # A loop does not keep its coroutines alive, and this one waits for a task that is paid for.
                self._abandoned.add(driving)
                driving.add_done_callback(self._forget)
            else:
                await asyncio.wait({driving})
            raise

    def _forget(self, driving: asyncio.Future[Any]) -> None:
        self._abandoned.discard(driving)
        if not driving.cancelled():
            # It was reported and logged; an exception that is asked for is not one that the event loop complains of.
            driving.exception()

    async def _run(self, session: Session, begin: Begin[T], deadline: float) -> T:
        with session:
            return await run_async(session.steps(begin(session), deadline), self.send, self.clock)

    async def _open(self) -> transports.AsyncTransport:
        """Find the connections of this event loop: a pool belongs to the loop it was opened on."""
        if self._transport:
            return self._transport
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            for ended in [other for other in list(self._opened) if other.is_closed()]:
                self._opened.pop(ended, None)
            holding = _hold(self._http_client)
            self._opened[loop] = await anext(holding), holding
        return self._opened[loop][0]


async def _hold(http_client: httpx2.AsyncClient | None) -> AsyncGenerator[transports.AsyncTransport]:
    """Hold connections open until closed; a loop that ends closes its generators, and so these, by itself."""
    opened = transports.open_async_transport(http_client)
    try:
        yield opened
    finally:
        await opened.close()


def _check_either(http_client: object, transport: object) -> None:
    if http_client and transport:
        raise InvalidUsageError("http_client and transport: give only one of them; both say how requests leave.")


def _task_of(ready: Status | Task) -> Task:
    return ready if isinstance(ready, Task) else ready.task
