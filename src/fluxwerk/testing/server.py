"""A real server for tests of other people's code: its requests to assert on, its trouble, and a clock to turn."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fluxwerk.catalog.rows import get_model
from fluxwerk.errors import UnknownModelError
from fluxwerk.server.faults.rules import FaultRule, Faults
from fluxwerk.server.loopback import loopback
from fluxwerk.types import Json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACCEPTED = 200
SERVER_KEY = "a-key-for-tests-only"


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One HTTP request that reached the server: `fields` is its JSON body, and `status` that of the answer.

    The key is not kept.
    """

    method: str
    path: str
    fields: Json
    status: int

    @property
    def model(self) -> str:
        """The model that is asked for, by its name in the catalogue; empty for any other request."""
        try:
            return get_model(self._text("model") or self.path).name
        except UnknownModelError:
            return ""

    @property
    def prompt(self) -> str:
        """The prompt, or an empty text."""
        return self._text("prompt")

    def _text(self, name: str) -> str:
        fields: Json = self.fields
        value = cast("dict[str, Json]", fields).get(name) if isinstance(fields, dict) else None
        return value if isinstance(value, str) else ""


class TurnableClock:
    """The time of this machine, and what it was turned by."""

    def __init__(self) -> None:
        self.turned = 0.0

    def now(self) -> float:
        """Tell the time in seconds since 1970."""
        return time.time() + self.turned

    def turn(self, seconds: float) -> None:
        """Let seconds pass at once: after 600 of them a delivery link has expired."""
        self.turned += seconds

    def reset(self) -> None:
        """Tell the time of this machine again."""
        self.turned = 0.0


class Troublemaker(Faults):
    """How the server misbehaves from now on: `trouble(on="submit", do="status", status=429, first=2)`."""

    may_change = True

    def __call__(self, **rule: Any) -> None:
        """Add a rule; its fields are those of a trouble file."""
        self.rules = (*self.rules, FaultRule(**rule))

    def clear(self) -> None:
        """Behave well again."""
        self.rules = ()
        self.reset()


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server: `requests` holds what reached it, `clock` can be turned, `trouble` makes it misbehave."""

    base_url: str
    requests: list[SeenRequest] = field(default_factory=list[SeenRequest])
    clock: TurnableClock = field(default_factory=TurnableClock)
    trouble: Troublemaker = field(default_factory=Troublemaker)

    @property
    def environment(self) -> dict[str, str]:
        """What `Client()` reads: a key that opens nothing else, and the base URL."""
        return {"BFL_API_KEY": SERVER_KEY, "BFL_BASE_URL": self.base_url}

    @property
    def submits(self) -> list[SeenRequest]:
        """The accepted requests for images."""
        return [one for one in self.requests if one.method == "POST" and one.status == ACCEPTED]

    def forget(self) -> None:
        """Behave well again, and forget what was seen; tasks and images stay."""
        self.requests.clear()
        self.trouble.clear()


@contextmanager
def local_server(**settings: Any) -> Generator[LocalServer]:
    """Run a server in a thread for as long as the context lasts; `settings` are those of `loopback`."""
    seen: list[SeenRequest] = []
    clock, trouble = TurnableClock(), Troublemaker(settings.pop("trouble", ()))
    with loopback(trouble=trouble, clock=clock.now, wrap=lambda app: Recorder(app, seen), **settings) as base:
        yield LocalServer(base, seen, clock, trouble)


class Recorder:
    """Wraps an ASGI application and notes every request when its answer begins."""

    def __init__(self, app: ASGIApp, seen: list[SeenRequest]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()

        async def receive_noted() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def send_noted(message: Message) -> None:
            # Before the answer leaves, so that whoever has it finds the request.
            if message["type"] == "http.response.start":
                self._seen.append(SeenRequest(scope["method"], scope["path"], _read(bytes(body)), message["status"]))
            await send(message)

        await self._app(scope, receive_noted, send_noted)


def _read(body: bytes) -> Json:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None
