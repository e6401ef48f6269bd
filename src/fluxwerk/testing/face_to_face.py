"""Client and server face to face: no socket, no thread, no waiting, and the code of both as it is in production."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from fluxwerk.client.base import BaseClient, of_each
from fluxwerk.client.client import Client
from fluxwerk.client.image import Image
from fluxwerk.client.inputs import RequestOptions
from fluxwerk.client.many import Result
from fluxwerk.drive import drive, pause_before
from fluxwerk.engines import Engine, Order
from fluxwerk.errors import ConnectionFailedError, FluxwerkError, TaskTimeoutError, TransportError
from fluxwerk.imagefile import PNG_SIGNATURE
from fluxwerk.polling.history import PollingHistory
from fluxwerk.server.faults.effects import SpoiltResponse
from fluxwerk.server.faults.rules import FaultRule, Faults
from fluxwerk.server.router import Pace, Service
from fluxwerk.server.state.accounts import Accounts, TaskRecord
from fluxwerk.testing.clock import PretendClock
from fluxwerk.testing.crowd import Crowd
from fluxwerk.testing.post import Post, suffer
from fluxwerk.types import Event, Flow, HttpRequest, Request, Response, Task, Tell

if TYPE_CHECKING:
    from typing import Unpack

T = TypeVar("T")
BASE = "http://fluxwerk.test"
KEY = "a-key-for-tests"

Fetch = Callable[[HttpRequest], Response]


class Blank:
    """The quickest engine: one colour, always PNG, whatever was ordered."""

    name = "blank"

    def render(self, order: Order) -> bytes:
        """Return a grey PNG of the ordered size."""
        return blank(order.width, order.height)


class FaceToFace(Client):
    """A `Client` whose requests are answered by a `Service` in the same thread, on a pretend clock.

    `seconds` says how long a task takes, `urls` answers what the server fetches, `meddle` sees each HTTP request and
    the answer before the client does, and may change the answer, raise `Lost`, or let seconds pass.  `trouble` is how
    the server misbehaves on purpose, `receiver` takes its webhooks when they are due, and `settings` are those of the
    `Service`.  Polls are planned as if nothing were known, unless there is an `experience`.  `journal` holds every HTTP
    request that reached the server, `events` everything the client told.

    With `strict=True`, one of these settings, the server refuses what the live service ignores.
    """

    def __init__(
        self,
        *,
        seconds: float | Pace = 0.0,
        books: Accounts | None = None,
        engine: Engine | None = None,
        urls: dict[str, bytes] | None = None,
        meddle: Callable[[HttpRequest, Response], Response] = lambda _, response: response,
        timeout: float = 600.0,
        trouble: Faults | Iterable[FaultRule] = (),
        receiver: Callable[[HttpRequest], Response] = lambda _: Response(204),
        experience: PollingHistory | None = None,
        slots: int | None = None,
        **settings: Any,
    ) -> None:
        self.events: list[Event] = []
        clock = PretendClock()
        experience = experience or PollingHistory(learning=False)
        BaseClient.__init__(
            self, KEY, None, BASE, timeout, self.events.append, slots, clock=clock, experience=experience
        )
        self.clock: PretendClock = clock
        self.journal: list[HttpRequest] = []
        self.urls = {} if urls is None else urls
        self.meddle = meddle
        self._engine = engine or Blank()
        self._post = Post(self.clock, receiver)
        self.service = Service(
            books or Accounts(),
            self.clock.now,
            engine=self._engine.name,
            entropy=random.Random(0).randbytes,  # noqa: S311  (the same ids in every run)
            pace=seconds if callable(seconds) else lambda _: seconds,
            on_accept=self._render,
            on_end=self._post.hear,
            trouble=trouble,
            **settings,
        )
        self._post.service = self.service

    def send(self, request: HttpRequest, budget: float | None = None) -> Response:
        """Carry one HTTP request to the server and its answer back."""
        self._post.deliver(self.clock.now())
        self.journal.append(request)
        arriving = HttpRequest(request.method, request.url, request.body, headers=self.access.headers(request))
        answer = drive(self.service.answer(arriving), self._fetch, clock=self.clock)
        if isinstance(answer, SpoiltResponse):
            suffer(answer, self.clock, budget)
        return self.meddle(request, answer)

    def settle(self) -> None:
        """Let the clock run until no webhook is under way any more."""
        self._post.deliver(None)

    def together(self, flows: Iterable[Flow[T]], timeout: float | None = None) -> list[T | FluxwerkError]:
        """Run many flows side by side on the pretend clock; each ends in its result or its error, in their order."""
        return _together(list(flows), self.send, self.clock, self.clock.now() + (timeout or self.timeout))

    def generate_many(self, requests: Iterable[Request | str], **wanted: Unpack[RequestOptions]) -> Iterator[Result]:
        """Make many images side by side on the pretend clock, within the slots, and yield each as it finishes."""
        crowd = Crowd(self.clock, self.slots, self.send, self._deadline(wanted.get("timeout")))
        return crowd.run((one, self._conversation(None), self._beginning(one, wanted)) for one in requests)

    def begin(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> Flow[Image]:
        """Return the flow that `generate` would run, for `together`."""
        return self._generating(self.on_event, prompt, wanted)

    def close(self) -> None:
        """Nothing is open."""

    def _beginning(self, request: Request | str, wanted: RequestOptions) -> Callable[[Tell], Flow[Image]]:
        return lambda tell: self._generating(tell, request, of_each(request, wanted))

    def _drive(self, begin: Callable[[Tell], Flow[T]], timeout: float | None, task: Task | None = None) -> T:
        with self._conversation(task) as talk:
            return drive(begin(talk.tell), self.send, self._deadline(timeout), talk.clock)

    def _render(self, job: TaskRecord) -> None:
        try:
            picture = self._engine.render(job.order)
        except Exception as trouble:  # noqa: BLE001  (as the server: a fault of the engine is the task's ending)
            self.service.fail(job, f"{type(trouble).__name__}: {trouble}")
        else:
            self.service.finish(job, picture)

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
            advance(number, TaskTimeoutError("The deadline passed before the image was there."))
            continue
        clock.jump_to(moment)
        try:
            advance(number, send(request))
        except TransportError as loss:
            advance(number, loss)
    return [results[number] for number in range(len(flows))]
