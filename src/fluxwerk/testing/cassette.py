"""A conversation with the service, recorded once and replayed without a network, a key or a bill."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

from fluxwerk import storage
from fluxwerk.catalog.rows import IMAGE_TYPES, list_models
from fluxwerk.client.client import AsyncClient, Client
from fluxwerk.client.credentials import Credentials
from fluxwerk.client.transport import AsyncTransport, Transport, open_async_transport, open_transport
from fluxwerk.errors import InvalidUsageError
from fluxwerk.polling.history import PollingHistory
from fluxwerk.testing.clock import PretendClock
from fluxwerk.types import HttpRequest, Json, Response

REPLAYED_KEY = "a-key-for-replaying"
FORM = 1
KEPT_HEADERS = frozenset({"content-type", "retry-after"})
REMOVED = "removed"
# A longer text without a blank, such as an image in a field of a newer model, is kept as its hash.
LONGEST_TEXT_KEPT = 512


class Cassette:
    """Records what a client and the service say to each other, or replays it on a pretend clock.

    With `record` its clients send real requests, which cost, and the file is written when the context ends; otherwise
    nothing leaves this machine.  Neither keys nor webhook secrets are written, nor the queries of delivery links,
    which are credentials for ten minutes; of an input image only its SHA-256.
    """

    def __init__(self, path: str | os.PathLike[str], *, record: bool = False) -> None:
        self.path = Path(path)
        self.record = record
        self._lock = threading.Lock()
        self._base = ""
        self._opened: list[_CassetteTransport] = []
        self._entries: list[dict[str, Json]] = []
        self._left: defaultdict[str, deque[Response]] = defaultdict(deque)
        if not record:
            self._load()

    def client(self, **settings: Any) -> Client:
        """Return a client of this conversation; `settings` are those of `Client`."""
        transport = _CassetteTransport(self, settings.pop("transport", None))
        self._opened.append(transport)
        return Client(transport=transport, **self._settings(settings))

    def async_client(self, **settings: Any) -> AsyncClient:
        """Return an asyncio client of this conversation; `settings` are those of `AsyncClient`."""
        real = settings.pop("transport", None)
        return AsyncClient(transport=_AsyncCassetteTransport(self, real), **self._settings(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for transport in self._opened:
            transport.close()
        if self.record:
            self.save()

    def save(self) -> None:
        """Write the conversation, whole or not at all."""
        with self._lock:
            text = json.dumps(
                {"form": FORM, "base_url": self._base, "conversation": self._entries}, indent=1, ensure_ascii=False
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        storage.save(text.encode() + b"\n", self.path, overwrite=True)

    def keep(self, credentials: Credentials, request: HttpRequest, response: Response) -> None:
        """Note a request and its answer."""
        with self._lock:
            self._base = self._base or credentials.base
            self._entries.append({"request": _request(request), "response": _response(response)})

    def play(self, request: HttpRequest) -> Response:
        """Answer as the service did; raises `InvalidUsageError` for what was not recorded."""
        asked = _request(request)
        with self._lock:
            left = self._left[_key(asked)]
            if not left:
                raise InvalidUsageError(
                    f"{self.path} holds no further {asked['method']} {asked['path']} with these fields. "
                    "Record the conversation again, with Cassette(path, record=True) or pytest --fluxwerk-record."
                )
            # A replay may poll once more often than the recording did.
            return left[0] if len(left) == 1 and request.method == "GET" else left.popleft()

    def _load(self) -> None:
        try:
            tape: Json = json.loads(self.path.read_text(encoding="utf-8"))
            self._base = str(tape["base_url"])
            for entry in tape["conversation"]:
                self._left[_key(entry["request"])].append(_played(entry["response"]))
        except FileNotFoundError:
            raise InvalidUsageError(
                f"There is no cassette {self.path}. Record it once, which sends real requests: "
                "Cassette(path, record=True), or pytest --fluxwerk-record."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidUsageError(f"{self.path} is no cassette: {error}. Record it again.") from None

    def _settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        if self.record:
            return settings
        replayed = {"base_url": self._base, "clock": PretendClock(), "history": PollingHistory(learning=False)}
        return {"api_key": REPLAYED_KEY, **replayed, **settings}


class _CassetteTransport:
    def __init__(self, cassette: Cassette, real: Transport | None) -> None:
        self._cassette = cassette
        self._real = real

    def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        if not self._cassette.record:
            return self._cassette.play(request)
        self._real = self._real or open_transport()
        response = self._real.send(credentials, request, budget)
        self._cassette.keep(credentials, request, response)
        return response

    def close(self) -> None:
        real, self._real = self._real, None
        if real:
            real.close()


class _AsyncCassetteTransport:
    def __init__(self, cassette: Cassette, real: AsyncTransport | None) -> None:
        self._cassette = cassette
        self._real = real

    async def send(self, credentials: Credentials, request: HttpRequest, budget: float | None) -> Response:
        if not self._cassette.record:
            return self._cassette.play(request)
        self._real = self._real or open_async_transport()
        response = await self._real.send(credentials, request, budget)
        self._cassette.keep(credentials, request, response)
        return response

    async def close(self) -> None:
        if self._real:
            await self._real.close()


def _key(asked: Mapping[str, Json]) -> str:
    return json.dumps([asked["method"], asked["path"], asked["fields"]], sort_keys=True)


def _request(request: HttpRequest) -> dict[str, Json]:
    """Describe a request without its secrets; the host may be another one on replay."""
    parts = urlsplit(request.url)
    # The query of a poll names a task, which only the account's key opens; that of a delivery link opens the image.
    path = f"{parts.path}?{parts.query}" if request.keyed and parts.query else parts.path
    return {"method": request.method, "path": path, "fields": _cleaned(_json(request.body))}


def _response(response: Response) -> dict[str, Json]:
    headers = {
        name: value
        for name, value in response.headers.items()
        if name in KEPT_HEADERS or name.startswith("x-ratelimit-")
    }
    told = _json(response.body)
    body = {"json": _cleaned(told)} if told is not None else {"base64": base64.b64encode(response.body).decode()}
    return {"status": response.status, "headers": headers, **body}


def _played(told: Mapping[str, Json]) -> Response:
    body = json.dumps(told["json"]).encode() if "json" in told else base64.b64decode(told["base64"])
    return Response(told["status"], dict(told["headers"]), body)


def _json(body: bytes) -> Json:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


def _cleaned(value: Json, name: str = "") -> Json:
    if isinstance(value, dict):
        return {key: _cleaned(held, key) for key, held in cast("dict[str, Json]", value).items()}
    if isinstance(value, list):
        return [_cleaned(held, name) for held in cast("list[Json]", value)]
    return _cleaned_text(value, name) if isinstance(value, str) else value


def _cleaned_text(text: str, name: str) -> str:
    if name in _fields_of("secret"):
        return REMOVED
    if text.startswith(("http://", "https://")):
        return text if name == "polling_url" else text.partition("?")[0]
    if name in _fields_of(*IMAGE_TYPES) or (len(text) > LONGEST_TEXT_KEPT and " " not in text):
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return text


@cache
def _fields_of(*kinds: str) -> frozenset[str]:
    """Name the options of these types, over all models."""
    rows = list_models().values()
    return frozenset(option.name for row in rows for option in row.options.values() if option.type in kinds)
