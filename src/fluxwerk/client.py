"""`Client` and `AsyncClient`: the same words, and the one seam through which HTTP requests leave."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from fluxwerk import catalog, pricing
from fluxwerk.catalog import Model
from fluxwerk.drive import WALL, drive, drive_async
from fluxwerk.errors import Error, Lost, NoKey, Unanswered, Unreachable
from fluxwerk.exchange import Event, Flow, HttpRequest, Request, Response, Status, Task, Tell, silence
from fluxwerk.image import Image, develop
from fluxwerk.input import Wanted, compose
from fluxwerk.protocol import flow, trust

if TYPE_CHECKING:
    from typing import Self, Unpack

    import httpx2

T = TypeVar("T")
DEFAULT_MODEL = "flux-2-pro"
# Large images at 50 steps take minutes when the service is busy.
PATIENCE = 600.0
# No single read may hang longer than this, even when the deadline is far.
LONGEST_READ = 60.0
LONGEST_CONNECT = 10.0
NOT_OPTIONS = frozenset({"model", "images", "extra", "timeout"})
LARGEST_BODY = 128 * 1024 * 1024
QUIET = (
    "httpx2",
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.http2",
    "httpcore2.proxy",
    "httpcore2.socks",
)

log = logging.getLogger("fluxwerk")


@dataclass(frozen=True, slots=True)
class Access:
    """Where the requests go and whose key they carry."""

    base: str
    key: str = field(repr=False)

    def headers(self, request: HttpRequest) -> dict[str, str]:
        """Add the key to those requests that want it and whose host may see it."""
        from fluxwerk.version import USER_AGENT  # noqa: PLC0415  (reading the version costs start-up time)

        headers = {"user-agent": USER_AGENT, **request.headers}
        if request.keyed and trust.may_carry_key(request.url, self.base):
            headers["x-key"] = self.key
        return headers


def open_access(api_key: str | None, region: str | None, base: str | None) -> Access:
    """Find address and key in the arguments, or else in BFL_BASE_URL and BFL_API_KEY; raises `NoKey`."""
    key = (api_key or os.environ.get("BFL_API_KEY", "")).strip()
    if not key:
        raise NoKey(
            "No API key. Create one at https://dashboard.bfl.ai/get-started and set it: export BFL_API_KEY=...  "
            "To try everything without a key, use the offline engine: fluxwerk generate ... --offline"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise NoKey("The API key holds white space or characters that no key has; copy it again from the dashboard.")
    if not (base or region):
        base = os.environ.get("BFL_BASE_URL")
    return Access(trust.base_url(region, base or None), key)


class Words:
    """What both clients say in the same way: everything but driving."""

    def __init__(
        self, api_key: str | None, region: str | None, base_url: str | None, timeout: float, on_event: Tell
    ) -> None:
        self.access = open_access(api_key, region, base_url)
        self.timeout = timeout
        self._on_event = on_event
        _keep_urls_out_of_logs()

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

    def _generating(self, prompt: str | Request | None, wanted: Wanted) -> Flow[Image]:
        base, tell = self.access.base, self._teller()
        task = yield from flow.submit(*_compose(prompt, wanted), base, tell)
        status = yield from flow.wait(task, base, tell)
        return develop(status, (yield from flow.download(status, base, tell)))

    def _submitting(self, prompt: str | Request | None, wanted: Wanted) -> Flow[Task]:
        return flow.submit(*_compose(prompt, wanted), self.access.base, self._teller())

    def _waiting(self, task: Task) -> Flow[Status]:
        return flow.wait(task, self.access.base, self._teller())

    def _downloading(self, ready: Status | Task) -> Flow[Image]:
        base, tell = self.access.base, self._teller()
        status = (yield from flow.wait(ready, base, tell)) if isinstance(ready, Task) else ready
        return develop(status, (yield from flow.download(status, base, tell)))

    def _deadline(self, timeout: float | None) -> float:
        return WALL.now() + (self.timeout if timeout is None else timeout)

    def _teller(self) -> Tell:
        began = time.monotonic()

        def tell(event: Event) -> None:
            told = replace(event, seconds=time.monotonic() - began)
            log.debug("%s %s", told.kind, told.task.id if told.task else told.reason)
            self._on_event(told)

        return tell


class Client(Words):
    """The blocking client; safe to share between threads.

    `timeout` is the deadline in seconds for everything a method does.  `on_event` hears what happens on the way.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        region: str | None = None,
        base_url: str | None = None,
        timeout: float = PATIENCE,
        on_event: Tell = silence,
        http_client: httpx2.Client | None = None,
    ) -> None:
        super().__init__(api_key, region, base_url, timeout, on_event)
        import httpx2  # noqa: PLC0415  (a tenth of a second that only senders pay)

        self._http = http_client or httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=64))
        self._owned = http_client is None

    def generate(self, prompt: str | Request | None = None, **wanted: Unpack[Wanted]) -> Image:
        """Submit, wait and download: one paid image, from a prompt with options or from a request made before."""
        return self._drive(self._generating(prompt, wanted), wanted.get("timeout"))

    def submit(self, prompt: str | Request | None = None, **wanted: Unpack[Wanted]) -> Task:
        """Ask for one image and return its task, a plain value to store; raises `InDoubt` if nobody answered."""
        return self._drive(self._submitting(prompt, wanted), wanted.get("timeout"))

    def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        """Poll until the task is ready; raises how it ended otherwise, and `TimedOut` with the task."""
        return self._drive(self._waiting(task), timeout)

    def download(self, ready: Status | Task, *, timeout: float | None = None) -> Image:
        """Fetch the image of a ready task; a bare task is waited for first."""
        return self._drive(self._downloading(ready), timeout)

    def credits(self, *, timeout: float | None = None) -> Decimal:
        """Ask for the account's balance in credits."""
        return self._drive(flow.ask_credits(self.access.base), timeout)

    def close(self) -> None:
        """Close the connections, unless they are those of a client that was handed in."""
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, steps: Flow[T], timeout: float | None) -> T:
        return drive(steps, self._send, self._deadline(timeout))

    def _send(self, request: HttpRequest, budget: float | None) -> Response:
        body = _Body(budget)
        with _Losses() as losses, self._http.stream(**_arguments(self.access, request, budget)) as answer:
            for part in answer.iter_bytes():
                body.add(part)
            return _response(answer, body.data)
        raise losses.loss


class AsyncClient(Words):
    """The asyncio client, with the same words as `Client`; it may outlive an event loop."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        region: str | None = None,
        base_url: str | None = None,
        timeout: float = PATIENCE,
        on_event: Tell = silence,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(api_key, region, base_url, timeout, on_event)
        self._given = http_client
        self._made: tuple[object, httpx2.AsyncClient, AsyncGenerator[httpx2.AsyncClient]] | None = None

    async def generate(self, prompt: str | None = None, **wanted: Unpack[Wanted]) -> Image:
        """Submit, wait and download: one paid image, from a prompt with options or from a request made before."""
        return await self._drive(self._generating(prompt, wanted), wanted.get("timeout"))

    async def submit(self, prompt: str | None = None, **wanted: Unpack[Wanted]) -> Task:
        """Ask for one image and return its task, a plain value to store; raises `InDoubt` if nobody answered."""
        return await self._drive(self._submitting(prompt, wanted), wanted.get("timeout"))

    async def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        """Poll until the task is ready; raises how it ended otherwise, and `TimedOut` with the task."""
        return await self._drive(self._waiting(task), timeout)

    async def download(self, ready: Status | Task, *, timeout: float | None = None) -> Image:
        """Fetch the image of a ready task; a bare task is waited for first."""
        return await self._drive(self._downloading(ready), timeout)

    async def credits(self, *, timeout: float | None = None) -> Decimal:
        """Ask for the account's balance in credits."""
        return await self._drive(flow.ask_credits(self.access.base), timeout)

    async def close(self) -> None:
        """Close the connections, unless they are those of a client that was handed in."""
        if self._made:
            await self._made[2].aclose()
            self._made = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _drive(self, steps: Flow[T], timeout: float | None) -> T:
        return await drive_async(steps, self._send, self._deadline(timeout))

    async def _send(self, request: HttpRequest, budget: float | None) -> Response:
        body, http = _Body(budget), await self._http()
        with _Losses() as losses:
            async with http.stream(**_arguments(self.access, request, budget)) as answer:
                async for part in answer.aiter_bytes():
                    body.add(part)
                return _response(answer, body.data)
        raise losses.loss

    async def _http(self) -> httpx2.AsyncClient:
        """Find the connections of this event loop: a pool belongs to the loop it was opened on."""
        if self._given:
            return self._given
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            holding = _hold()
            self._made = loop, await anext(holding), holding
        return self._made[1]


async def _hold() -> AsyncGenerator[httpx2.AsyncClient]:
    """Hold connections open until closed; a loop that ends closes its generators, and so these, by itself."""
    import httpx2  # noqa: PLC0415

    http = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=256, max_keepalive_connections=64))
    try:
        yield http
    finally:
        await http.aclose()


def _compose(prompt: str | Request | None, wanted: Wanted) -> tuple[Model, Request]:
    if isinstance(prompt, Request):
        return catalog.find(wanted.get("model", prompt.model)), prompt
    model = catalog.find(wanted.get("model", DEFAULT_MODEL))
    options = {name: value for name, value in wanted.items() if name not in NOT_OPTIONS}
    images, extra = wanted.get("images", ()), wanted.get("extra")
    return model, compose(model, prompt, images=images, options=options, extra=extra)


class _Body:
    """What has arrived of a body, bounded in bytes and in seconds."""

    def __init__(self, budget: float | None) -> None:
        self.data = bytearray()
        self._until = None if budget is None else time.monotonic() + budget

    def add(self, part: bytes) -> None:
        self.data += part
        if len(self.data) > LARGEST_BODY:
            raise Unanswered(f"the answer is larger than {LARGEST_BODY} bytes")
        if self._until is not None and time.monotonic() > self._until:
            raise Unanswered("the answer was still dripping at the deadline")


def _arguments(access: Access, request: HttpRequest, budget: float | None) -> dict[str, Any]:
    import httpx2  # noqa: PLC0415

    left = LONGEST_READ if budget is None else max(0.001, min(LONGEST_READ, budget))
    return {
        "method": request.method,
        "url": request.url,
        "content": request.body or None,
        "headers": access.headers(request),
        # httpx2 would carry x-key along a redirect to another host.
        "follow_redirects": False,
        "timeout": httpx2.Timeout(left, connect=min(left, LONGEST_CONNECT)),
    }


def _response(answer: httpx2.Response, body: bytearray) -> Response:
    return Response(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, bytes(body))


class _Losses:
    """Keeps the HTTP library's exceptions in, since they carry URLs and headers; `loss` is to be raised instead.

    It is raised after the `with`, so that the library's exception does not hang on ours as its context.
    """

    loss: Lost

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, trouble: BaseException | None, trace: object) -> bool:
        if not isinstance(trouble, Exception) or isinstance(trouble, Error):
            return False
        loss = _loss(trouble)
        if loss is None:
            return False
        self.loss = loss
        return True


def _loss(trouble: Exception) -> Lost | None:
    import ssl  # noqa: PLC0415

    import anyio  # noqa: PLC0415
    import httpx2  # noqa: PLC0415

    reason = f"{type(trouble).__name__}: {trust.redact(str(trouble))}".rstrip(": ")
    never_left = (
        httpx2.ConnectError,
        httpx2.ConnectTimeout,
        httpx2.PoolTimeout,
        httpx2.ProxyError,
        httpx2.UnsupportedProtocol,
        httpx2.LocalProtocolError,
        httpx2.InvalidURL,
    )
    if isinstance(trouble, never_left):
        return Unreachable(f"The service could not be reached ({reason}).")
    if isinstance(trouble, httpx2.HTTPError | ssl.SSLError | anyio.EndOfStream | anyio.BrokenResourceError):
        return Unanswered(f"the answer was lost ({reason})")
    return None


def _keep_urls_out_of_logs() -> None:
    """Redact the HTTP library's own log records: it logs complete signed URLs."""
    for name in QUIET:
        logger = logging.getLogger(name)
        if _redact_record not in logger.filters:
            logger.addFilter(_redact_record)


def _redact_record(record: logging.LogRecord) -> bool:
    shown: Callable[[], str] = record.getMessage
    text = trust.redact(shown())
    if "x-key" in text or "location" in text.lower():
        text = text.split("headers", 1)[0].split("[(", 1)[0] + "…"
    record.msg, record.args = text, ()
    return True
