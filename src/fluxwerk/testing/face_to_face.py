"""Client and server face to face: no socket, no thread, no waiting, and the code of both as it is in production."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fluxwerk.client.base import of_each
from fluxwerk.client.client import DEFAULT_TIMEOUT, Client
from fluxwerk.client.credentials import Credentials
from fluxwerk.client.gallery import Gallery
from fluxwerk.client.image import Image
from fluxwerk.client.inputs import RequestOptions
from fluxwerk.client.session import Session
from fluxwerk.drive import Send, Steps, drive, out_of_time, pause_before
from fluxwerk.engines import Engine, Order
from fluxwerk.errors import ConnectionFailedError, FluxwerkError, StorageError, TransportError
from fluxwerk.imagefile import PNG_SIGNATURE
from fluxwerk.polling.history import PollingHistory
from fluxwerk.server.faults.effects import SpoiltResponse
from fluxwerk.server.faults.rules import FaultRule, Faults
from fluxwerk.server.router import Router
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import Pace, ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.testing.clock import PretendClock
from fluxwerk.testing.crowd import Crowd
from fluxwerk.testing.post import Post, suffer
from fluxwerk.types import Event, Flow, HttpRequest, Request, Response

if TYPE_CHECKING:
    from typing import Unpack

T = TypeVar("T")
BASE = "http://fluxwerk.test"
KEY = "a-key-for-tests"

# Seconds until an image is handed in again that the storage did not take.
RETRY_SECONDS = 1.0
Intercept = Callable[[HttpRequest, Response], Response]


class Blank:
    """The quickest engine: one colour, always PNG, whatever was ordered."""

    name = "blank"

    def render(self, order: Order) -> bytes:
        """Return a grey PNG of the ordered size."""
        return blank(order.width, order.height)


class InlineWorkers:
    """Does the server's work at once: renders each accepted task, and hands each webhook to the post."""

    def __init__(self, state: ServerState, engine: Engine, post: Post, orders: list[Order]) -> None:
        self._state = state
        self._engine = engine
        self._post = post
        self._orders = orders

    def accepted(self, _: TaskRecord) -> None:
        """Render the image before the submit is answered."""
        while (job := self._state.claim()) is not None:
            self._render(job)

    def resumed(self) -> None:
        """Render what waits, and hand over the webhooks that are owed."""
        while (job := self._state.claim()) is not None:
            self._render(job)
        for owed in self._state.tasks.owed():
            self._post.add(owed)

    def _render(self, job: TaskRecord) -> None:
        self._orders.append(job.order)
        try:
            image = self._engine.render(job.order)
        except Exception as error:  # noqa: BLE001  (as on the server: the engine's failure is the task's ending)
            self._state.fail(job, f"{type(error).__name__}: {error}")
        else:
            self._finish(job, image)

    def _finish(self, job: TaskRecord, image: bytes) -> None:
        """Keep the image, or try again later what no storage takes now."""
        try:
            self._state.finish(job, image)
        except StorageError as error:
            self._state.condition.note(error)
            self._post.later(self._state.clock() + RETRY_SECONDS, lambda: self._finish(job, image))

    def cancelled(self, job: TaskRecord) -> None:
        """Stop nothing: a task is rendered as soon as it is accepted."""

    def ended(self, job: TaskRecord) -> None:
        """Have the webhook delivered at its moment."""
        self._post.add(job)


class RouterTransport:
    """The transport of a `Client` whose requests a `Router` answers in the same thread, on a pretend clock.

    `journal` holds every HTTP request that reached the server.
    """

    def __init__(self, router: Router, post: Post, clock: PretendClock, fetch: Send, intercept: Intercept) -> None:
        self.journal: list[HttpRequest] = []
        self._router = router
        self._post = post
        self._clock = clock
        self._fetch = fetch
        self._intercept = intercept

    def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        """Hand one HTTP request to the server and its answer back."""
        self._post.deliver(self._clock.now())
        self.journal.append(request)
        arriving = HttpRequest(request.method, request.url, request.body, headers=credentials.headers(request))
        answer = drive(self._router.answer(arriving), self._fetch, clock=self._clock)
        if isinstance(answer, SpoiltResponse):
            suffer(answer, self._clock, budget)
        return self._intercept(request, answer)

    def close(self) -> None:
        """Close nothing, since nothing is open."""


class FaceToFace(Client):
    """A `Client` whose requests are answered by a `Router` in the same thread, on a pretend clock.

    `seconds` says how long a task takes, `urls` answers what the server fetches, `intercept` sees each HTTP request and
    the answer before the client does, and may change the answer, raise `TransportError`, or let seconds pass.
    `trouble` is how the server misbehaves on purpose, `receiver` takes its webhooks when they are due, and `settings`
    are those of the `ServerState`: with `strict=True` it refuses what the live service ignores, with `keeps_keys=True`
    it takes a repeated submit for the same one, as `fluxwerk serve` does and the live service does not.  Polls are
    planned as if nothing were known, unless there is a `history`.  `journal` holds every HTTP request that reached the
    server, `orders` every order that reached the engine, `events` every event of the client.
    """

    clock: PretendClock

    def __init__(
        self,
        *,
        seconds: float | Pace = 0.0,
        accounts: Accounts | None = None,
        engine: Engine | None = None,
        urls: dict[str, bytes] | None = None,
        intercept: Intercept = lambda _, response: response,
        timeout: float = DEFAULT_TIMEOUT,
        trouble: Faults | Iterable[FaultRule] = (),
        receiver: Callable[[HttpRequest], Response] = lambda _: Response(204),
        history: PollingHistory | None = None,
        slots: int | None = None,
        keeps_keys: bool = False,
        account: Literal["shared", "exclusive"] = "shared",
        on_doubt: Literal["stop", "settle", "resubmit"] = "settle",
        **settings: Any,
    ) -> None:
        self.events: list[Event] = []
        self.orders: list[Order] = []
        self.urls = {} if urls is None else urls
        self._engine = engine or Blank()
        clock = PretendClock()
        self.state = ServerState(
            accounts or Accounts(),
            clock.now,
            engine=self._engine.name,
            entropy=random.Random(0).randbytes,  # noqa: S311  (the same ids in every run)
            pace=seconds if callable(seconds) else lambda _: seconds,
            trouble=trouble,
            keeps_keys=keeps_keys,
            **settings,
        )
        self.router = Router(self.state)
        self._post = Post(self.state, clock, receiver)
        self._stop_working = self.state.subscribe(InlineWorkers(self.state, self._engine, self._post, self.orders))
        transport = RouterTransport(self.router, self._post, clock, self._fetch, intercept)
        self.journal = transport.journal
        super().__init__(
            KEY,
            base_url=BASE,
            timeout=timeout,
            on_event=self.events.append,
            slots=slots,
            transport=transport,
            history=history or PollingHistory(learning=False),
            clock=clock,
            account=account,
            on_doubt=on_doubt,
        )

    def deliver_webhooks(self) -> None:
        """Let the clock run until no webhook is under way any more."""
        self._post.deliver(None)

    def together(self, flows: Iterable[Flow[T]], timeout: float | None = None) -> list[T | FluxwerkError]:
        """Run many flows side by side on the pretend clock, without slots; each ends in its result or its error."""
        return _together(list(flows), self.send, self.clock, self.clock.now() + (timeout or self.timeout))

    def generate_many(self, requests: Iterable[Request | str], **wanted: Unpack[RequestOptions]) -> Gallery:
        """Make many images side by side on the pretend clock, within the slots, and yield each as it finishes."""
        many, deadline = self._many(requests), self._deadline(wanted.get("timeout"))

        def steps(one: Request | str) -> Steps[Image]:
            session = self._session(switch=many)
            flow = self._generating(session, one, of_each(one, wanted))
            return _within(session, session.steps(flow, deadline))

        return Gallery(Crowd(self.clock, self.send).run((one, steps(one)) for one in requests))

    def begin(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Flow[Image]:
        """Return the flow that `generate` would run, for `together`."""
        return self._generating(self._session(), prompt, wanted)

    def _fetch(self, request: HttpRequest, _budget: float | None) -> Response:
        if request.url not in self.urls:
            raise ConnectionFailedError("it could not be reached")
        return Response(200, {}, self.urls[request.url])


@cache
def blank(width: int, height: int) -> bytes:
    """Make the smallest whole PNG of that size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * ((width + 1) * height), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _together(
    flows: list[Flow[T]], send: Callable[[HttpRequest], Response], clock: PretendClock, deadline: float
) -> list[T | FluxwerkError]:
    results: dict[int, T | FluxwerkError] = {}
    queue: list[tuple[float, int, int, HttpRequest]] = []
    tickets = count()

    def advance(number: int, reply: Response | FluxwerkError | None) -> None:
        flow = flows[number]
        try:
            call = flow.throw(reply) if isinstance(reply, FluxwerkError) else flow.send(reply) if reply else next(flow)
        except StopIteration as done:
            results[number] = done.value
        except FluxwerkError as error:
            results[number] = error
        else:
            pause = pause_before(call, deadline - clock.now(), clock)
            moment = deadline if pause is None else clock.now() + pause
            heappush(queue, (moment, next(tickets), number, call.request))

    for number in range(len(flows)):
        advance(number, None)
    while queue:
        moment, _, number, request = heappop(queue)
        if moment >= deadline:
            advance(number, out_of_time())
            continue
        clock.jump_to(moment)
        try:
            advance(number, send(request))
        except TransportError as loss:
            advance(number, loss)
    return [results[number] for number in range(len(flows))]


def _within(session: Session, steps: Steps[T]) -> Steps[T]:
    with session:
        return (yield from steps)
