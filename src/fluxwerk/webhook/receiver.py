"""The ASGI application: it verifies a webhook, answers within milliseconds, and lets the inbox act afterwards."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict

from fluxwerk.client.wakeup import Wakeup
from fluxwerk.errors import InvalidSignatureError, InvalidUsageError, InvalidWebhookError
from fluxwerk.protocol.webhook import LARGEST, check, read, verify
from fluxwerk.protocol.wire import dump
from fluxwerk.types import Task
from fluxwerk.webhook.inbox import Find, Inbox, OnStatus

if TYPE_CHECKING:
    from fluxwerk.client.client import AsyncClient, Client

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Seconds for reading a body; a quarter of a megabyte takes far less.
BODY_TIMEOUT = 10.0

log = logging.getLogger("fluxwerk.webhook")


class WebhookOptions(TypedDict):
    """The options of a submit whose webhook is to be sent here."""

    webhook_url: str
    webhook_secret: str


class Receiver:
    """An ASGI application that receives webhooks; mount it in FastAPI, Starlette or Django, or serve it alone.

    It verifies and answers at once.  Afterwards it notifies `wakeup` of the task and, if `on_status` is given, polls
    the task again through `client` and calls `on_status` with the polled status, once for each task. `client` is a
    `Client` or an `AsyncClient`; `on_status` and `find` are functions or coroutine functions.

    A task is known if `expect` was called with it, or if `find` returns it for its id; a webhook that arrives before
    `expect` is kept. `url` is the public address of this receiver, for `options`; `token` is an unguessable last part
    of that address, and requests without it are answered with 404 before any verification.
    """

    def __init__(
        self,
        secret: str,
        on_status: OnStatus | None = None,
        *,
        client: Client | AsyncClient | None = None,
        find: Find | None = None,
        url: str = "",
        token: str = "",
        accept_secret_header: bool = False,
        wakeup: Wakeup | None = None,
    ) -> None:
        check(secret)
        self.wakeup = wakeup or Wakeup()
        self._inbox = Inbox(self.wakeup, on_status, client, find)
        self._secret = secret
        self._url = url
        self._token = token
        self._accept_secret_header = accept_secret_header

    def __repr__(self) -> str:
        return f"Receiver({self._inbox!r})"

    @property
    def options(self) -> WebhookOptions:
        """The options of a submit whose webhook is sent here: `client.submit(prompt, **receiver.options)`."""
        if not self._url:
            raise InvalidUsageError("The receiver does not know its public address. Pass Receiver(url='https://…').")
        url = f"{self._url.rstrip('/')}/{self._token}" if self._token else self._url
        return WebhookOptions(webhook_url=url, webhook_secret=self._secret)

    def expect(self, task: Task) -> None:
        """Register a submitted task, also after its webhook has arrived; safe from any thread."""
        self._inbox.expect(task)

    async def settle(self) -> None:
        """Return when every accepted webhook has been acted upon."""
        await self._inbox.settle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
        else:
            try:
                answer = await self._answer(scope, receive)
            except ConnectionError:
                return
            await _reply(send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> _Answer:
        if not self._is_here(scope["path"]):
            return _Answer(404, "Not found.")
        if scope["method"] != "POST":
            return _Answer(405, "Method not allowed; send webhooks by POST.", {"allow": "POST"})
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        body = await _body(headers, receive)
        return body if isinstance(body, _Answer) else self._judge(body, headers)

    def _is_here(self, path: str) -> bool:
        last = path.rstrip("/").rpartition("/")[2]
        return not self._token or hmac.compare_digest(last.encode("utf-8", "replace"), self._token.encode())

    def _judge(self, body: bytes, headers: Mapping[str, str]) -> _Answer:
        try:
            verify(body, headers, self._secret, accept_secret_header=self._accept_secret_header)
            hint = read(body)
        except (InvalidSignatureError, InvalidWebhookError) as fault:
            log.warning("Refused a webhook: %s", fault)
            return _Answer(401 if isinstance(fault, InvalidSignatureError) else 400, str(fault))
        if self._inbox.is_full:
            return _Answer(503, "Too many webhooks are in progress; retry in 5 seconds.", {"retry-after": "5"})
        self._inbox.take(hint)
        return _Answer(200)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Answer the lifespan events of the server; a mounted application does not receive them."""
        while True:
            event = (await receive())["type"]
            if event == "lifespan.shutdown":
                await self.settle()
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return


class _Answer(NamedTuple):
    """An HTTP status, a message for the sender, and additional headers."""

    status: int
    message: str = ""
    extra: Mapping[str, str] = {}


async def _body(headers: Mapping[str, str], receive: Receive, seconds: float = BODY_TIMEOUT) -> bytes | _Answer:
    """Read the body within a limit of size and time; raises `ConnectionError` if the sender disconnects."""
    import asyncio  # noqa: PLC0415  (loading asyncio would slow the import of the package)

    too_large = _Answer(413, f"The body is too large; at most {LARGEST} bytes are read.", {"connection": "close"})
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > LARGEST:
        return too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise ConnectionError
                body += event.get("body", b"")
                if len(body) > LARGEST:
                    return too_large
                if not event.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        return _Answer(408, f"The body did not arrive within {seconds:g} seconds.", {"connection": "close"})


async def _reply(send: Send, answer: _Answer) -> None:
    body = dump({"message": answer.message} if answer.message else {"received": True})
    headers = {"content-type": "application/json", "content-length": str(len(body)), **answer.extra}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
