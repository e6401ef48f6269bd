"""The log of requests: an id for each, and one line about it with its task, key, model, status and duration.

A line has no prompt unless the operator asks for it, and neither a query nor a long part of a path, which may open
something.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
# What others use as ids: UUIDs, ULIDs, trace ids, names with a number.
WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
# The rest of such a path is unguessable, and the line has the task's id.
IMAGES = "/results/"
# A task's id has 36 characters; what is longer may be the secret part of a link.
LONGEST_PART, LONGEST_PATH = 40, 200
NAME = "fluxwerk.server.requests"
FORMATS = ("json", "text")

log = logging.getLogger(NAME)


@dataclass(slots=True)
class RequestRecord:
    """What becomes known about one request while it is answered."""

    id: str
    task: str | None = None
    key: str | None = None
    model: str | None = None
    prompt: str | None = field(default=None, repr=False)


_current: ContextVar[RequestRecord | None] = ContextVar("fluxwerk_request", default=None)


def current() -> RequestRecord:
    """Return the record of the request that is being answered in this context, or an empty one."""
    return _current.get() or RequestRecord("")


def note(
    *, task: str | None = None, key: str | None = None, model: str | None = None, prompt: str | None = None
) -> None:
    """Add to the record of the request that is being answered in this context, if there is one."""
    record = _current.get()
    if record is None:
        return
    record.task = task or record.task
    record.key = key or record.key
    record.model = model or record.model
    record.prompt = prompt or record.prompt


class RequestLog:
    """Wraps an ASGI application: gives every request an id, answers it as X-Request-Id, and logs one line.

    A well-formed id that the client sends is kept.  Lines are written at the level INFO, with the prompt if `prompts`.
    """

    def __init__(self, app: ASGIApp, *, prompts: bool = False, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._prompts = prompts
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and write its line when it is answered or given up."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record, begun = RequestRecord(_identity(Headers(scope=scope).get(HEADER, ""))), self._clock()
        status: int | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = record.id
            await send(message)

        token = _current.set(record)
        try:
            await self._app(scope, receive, answer)
        finally:
            _current.reset(token)
            if log.isEnabledFor(logging.INFO):
                self._write(scope, record, status, self._clock() - begun)

    def _write(self, scope: Scope, record: RequestRecord, status: int | None, seconds: float) -> None:
        line = {
            "request": record.id,
            "method": scope["method"],
            "path": _shown(scope),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "task": record.task,
            "key": record.key,
            "model": record.model,
        }
        if self._prompts and record.prompt is not None:
            line["prompt"] = record.prompt
        log.info("request", extra={"line": line})


class JsonLines(logging.Formatter):
    """Writes every record as one line of JSON; a request's own fields stand beside time and level."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as a line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment.replace("+00:00", "Z"), "level": record.levelname.lower()}
        fields: dict[str, Any] | None = getattr(record, "line", None)
        if fields is None:
            fields = {"logger": record.name, "message": record.getMessage()}
            if record.exc_info:
                fields["error"] = self.formatException(record.exc_info)
        return json.dumps(line | fields, default=str)


class TextLines(logging.Formatter):
    """Writes level and message; a request's line has its fields as `name=value`."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as a line."""
        fields: dict[str, Any] | None = getattr(record, "line", None)
        if fields is None:
            return super().format(record)
        known = (f"{name}={_word(value)}" for name, value in fields.items() if value is not None)
        return f"{record.levelname} {' '.join(known)}"


def configure(form: str | None) -> None:
    """Write this process's log to the standard error; with a form, `json` or `text`, requests are logged too."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if form is not None:
        log.setLevel(logging.INFO)


def _identity(given: str) -> str:
    return given if WELL_FORMED.fullmatch(given) else secrets.token_hex(8)


def _shown(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    path = raw.partition(b"?")[0].decode("ascii", "backslashreplace")
    if path.startswith(IMAGES):
        return f"{IMAGES}…"
    return "/".join(part if len(part) <= LONGEST_PART else "…" for part in path.split("/"))[:LONGEST_PATH]


def _word(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and not set(text) & {" ", '"', "="} else json.dumps(text)
