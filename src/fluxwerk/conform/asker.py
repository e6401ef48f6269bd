"""Asks a server plainly: no retries, so that every answer is seen as it is, and no image beyond the cap."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import cast
from urllib.parse import urlsplit

from fluxwerk.catalog import prices
from fluxwerk.catalog.rows import Model
from fluxwerk.client.client import Client
from fluxwerk.conform.receiver import Calls
from fluxwerk.drive import Clock
from fluxwerk.errors import FluxwerkError
from fluxwerk.protocol import trust, wire
from fluxwerk.types import HttpRequest, Json, Response

NOTHING = Decimal(0)
SIDE = 64
PROMPT = "a red cube on a white table"
ANSWER_TIMEOUT = 60.0
TASK_TIMEOUT = 300.0
POLL_PAUSE = 0.25


class CapReachedError(FluxwerkError):
    """The next image would cost more than is allowed; nothing was sent."""


@dataclass(slots=True)
class Made:
    """One image that was made: its submit's answer, every poll, and when what happened, in seconds."""

    submitted: Mapping[str, Json]
    polls: list[Response]
    seconds: float

    @property
    def last(self) -> Mapping[str, Json]:
        """The body of the last poll."""
        return body_of(self.polls[-1])

    @property
    def link(self) -> str:
        """Where the image lies; a credential."""
        result = self.last.get("result")
        return str(cast("dict[str, Json]", result).get("sample", "")) if isinstance(result, dict) else ""


class Asker:
    """A client of one server, with a hard cap on what it buys; `spent` is in credits.

    `calls` are the webhooks that come to `webhook`, which is the address that the server is given.  `moderated_prompt`
    is one that the server should stop.
    """

    def __init__(
        self,
        client: Client,
        model: Model,
        cap: Decimal,
        clock: Clock,
        *,
        webhook: str = "",
        calls: Calls | None = None,
        moderated_prompt: str = "",
    ) -> None:
        self.model = model
        self.webhook = webhook
        self.calls = calls or Calls()
        self.moderated_prompt = moderated_prompt
        self.spent = NOTHING
        self.clock = clock
        self.base = client.access.base
        self._client = client
        self._cap = cap
        self._shared: Made | None = None

    @property
    def price(self) -> Decimal:
        """What one image should cost, in credits."""
        return prices.estimate(self.model, SIDE, SIDE)

    @property
    def path(self) -> str:
        """Where images of the model are asked for."""
        return self.model.path

    def afford(self, images: int) -> None:
        """Raise `CapReachedError` if so many images would cost more than is left."""
        if self.spent + images * self.price > self._cap:
            raise CapReachedError(f"{images} images would cost more than is left of {self._cap} credits.")

    def get(self, path: str, *, keyed: bool = True, method: str = "GET", **headers: str) -> Response:
        """Send a request without a body; a path is one of the base URL."""
        return self._send(HttpRequest(method, self._url(path), keyed=keyed, headers=_named(headers)))

    def refused(self, body: Json, *, keyed: bool = True, path: str = "", **headers: str) -> Response:
        """Send a submit that should be refused; one that is accepted is counted as bought."""
        return self._submit(body, keyed=keyed, path=path, headers=_named(headers))

    def submit(self, headers: Mapping[str, str] | None = None, **fields: Json) -> Response:
        """Ask for one small image."""
        given: dict[str, Json] = {"prompt": PROMPT, "width": SIDE, "height": SIDE, **fields}
        return self._submit(given, keyed=True, path="", headers=headers or {})

    def make(self, **fields: Json) -> Made:
        """Ask for one small image and poll it to its end."""
        began = self.clock.now()
        answer = self.submit(**fields)
        if answer.status not in range(200, 300):
            raise FluxwerkError(f"The submit was answered {answer.status}.")
        submitted = body_of(answer)
        return Made(submitted, self.poll_to_the_end(submitted), self.clock.now() - began)

    def shared(self) -> Made:
        """Return the image that all questions about a usual image share."""
        if self._shared is None:
            self._shared = self.make(seed=7)
        return self._shared

    def poll_to_the_end(self, submitted: Mapping[str, Json]) -> list[Response]:
        """Poll until the task has an ending."""
        polls: list[Response] = []
        until = self.clock.now() + TASK_TIMEOUT
        while self.clock.now() < until:
            polls.append(self.get(polling_url(self.base, submitted)))
            word = wire.read_word(str(body_of(polls[-1]).get("status", "")))
            if wire.OUTCOMES.get(word) not in (None, wire.OUTCOMES["Pending"]):
                break
            self.clock.sleep(POLL_PAUSE)
        return polls

    def balance(self) -> Decimal:
        """Ask for the balance in credits."""
        return wire.read_credits(self.get("/v1/credits"))

    def _submit(self, body: Json, *, keyed: bool, path: str, headers: Mapping[str, str]) -> Response:
        self.afford(1)
        data = body if isinstance(body, bytes) else wire.dump(body)
        http = HttpRequest("POST", self._url(path or self.path), data, keyed, headers={**wire.JSON, **headers})
        # Counted before it leaves: an answer that is lost may be charged.
        self.spent += self.price
        response = self._send(http)
        if response.status in range(400, 500):
            self.spent -= self.price
        elif response.status in range(200, 300):
            cost = body_of(response).get("cost")
            self.spent += Decimal(str(cost)) - self.price if isinstance(cost, int | float) else NOTHING
        return response

    def _send(self, http: HttpRequest) -> Response:
        return self._client.send(http, ANSWER_TIMEOUT)

    def _url(self, path: str) -> str:
        return path if "://" in path else f"{self.base}/{path.lstrip('/')}"


def body_of(response: Response) -> dict[str, Json]:
    """Read a JSON object; anything else is an empty one."""
    try:
        body: Json = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Json]", body) if isinstance(body, dict) else {}


def polling_url(base: str, submitted: Mapping[str, Json]) -> str:
    """Return where a task is polled, if the key may go there."""
    url = submitted.get("polling_url") or f"{base}/v1/get_result?id={submitted.get('id', '')}"
    return trust.check_polling(str(url), base)


def host_of(url: str) -> str:
    """Name scheme and host of a URL, which is all of it that may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"


def refusal_of(response: Response) -> dict[str, Json]:
    """Describe a refusal by what programs read: its status, the names in its body, and the kinds of its faults."""
    body = body_of(response)
    detail = body.get("detail")
    said: dict[str, Json] = {"status": response.status, "names": sorted(body)}
    if isinstance(detail, list):
        entries = [cast("dict[str, Json]", one) for one in cast("list[Json]", detail) if isinstance(one, dict)]
        said["faults"] = [f"{'.'.join(map(str, one.get('loc', [])))}: {one.get('type')}" for one in entries]
    elif isinstance(detail, str):
        said["detail"] = trust.quote(detail)
    return said


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
