"""The ASGI face of the inbox: it verifies, answers within milliseconds, and lets the inbox act afterwards."""

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

# Seconds: an honest sender's quarter of a megabyte is there long before.
LONGEST_BODY = 10.0

log = logging.getLogger("fluxwerk.webhook")


class WebhookOptions(TypedDict):
    """What a submit has to say so that its webhook comes here."""

    webhook_url: str
    webhook_secret: str


class Receiver:
    """An ASGI application that takes in webhooks; mount it in FastAPI, Starlette or Django, or serve it alone.

    It verifies and answers at once.  Then it notifies `wakeup` of the task and, if `on_status` is given, polls the
    task again through `client` and calls `on_status` with what the poll said, once for each task.  Either kind of
    client will do, and `on_status` and `find` may be functions or coroutine functions.

    A task is known if `expect` told of it, or if `find`, asked for its id, returns it; a webhook that comes before its
    `expect` is kept for it.  `url` is the address of this receiver as seen from outside, for `options`; `token` is an
    unguessable last part of that address, without which nobody gets as far as the verification.
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
        """The options of a submit whose webhook is to come here: `client.submit(prompt, **receiver.options)`."""
        if not self._url:
            raise InvalidUsageError(
                "The receiver does not know its address as seen from outside: give it url='https://…'."
            )
        url = f"{self._url.rstrip('/')}/{self._token}" if self._token else self._url
        return WebhookOptions(webhook_url=url, webhook_secret=self._secret)

    def expect(self, task: Task) -> None:
        """Tell of a task that was submitted; safe from any thread, and after its webhook came as well."""
        self._inbox.expect(task)

    async def settle(self) -> None:
        """Come back when every webhook that was taken in has been acted upon."""
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
            return _Answer(404, "There is nothing here.")
        if scope["method"] != "POST":
            return _Answer(405, "Webhooks are sent by POST.", {"allow": "POST"})
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
            log.warning("refused a webhook: %s", fault)
            return _Answer(401 if isinstance(fault, InvalidSignatureError) else 400, str(fault))
        if self._inbox.is_full:
            return _Answer(503, "Too many webhooks at once.", {"retry-after": "5"})
        self._inbox.take(hint)
        return _Answer(200)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Answer the server's own start and end; a mounted application never hears of them."""
        while True:
            word = (await receive())["type"]
            if word == "lifespan.shutdown":
                await self.settle()
            await send({"type": f"{word}.complete"})
            if word == "lifespan.shutdown":
                return


class _Answer(NamedTuple):
    """An HTTP status, what is said to the sender beside it, and headers beyond the usual ones."""

    status: int
    said: str = ""
    extra: Mapping[str, str] = {}


async def _body(headers: Mapping[str, str], receive: Receive, seconds: float = LONGEST_BODY) -> bytes | _Answer:
    """Read the whole body within bounds of size and time; raises `ConnectionError` when the sender hangs up."""
    import asyncio  # noqa: PLC0415  (importing the package must not load it)

    too_large = _Answer(413, f"A webhook has at most {LARGEST} bytes.", {"connection": "close"})
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > LARGEST:
        return too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError
                body += message.get("body", b"")
                if len(body) > LARGEST:
                    return too_large
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        return _Answer(408, "The body did not arrive in time.", {"connection": "close"})


async def _reply(send: Send, answer: _Answer) -> None:
    body = dump({"message": answer.said} if answer.said else {"received": True})
    headers = {"content-type": "application/json", "content-length": str(len(body)), **answer.extra}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
