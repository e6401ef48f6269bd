"""Where the doors stand in the HTTP server: reads a request, drives a door's flow, and notices when the client goes."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

import fastapi
from fastapi.responses import Response as Answer
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from fluxwerk.drive import WALL, drive_async
from fluxwerk.errors import FluxwerkError
from fluxwerk.server.doors import automatic, comfy, form, openai, refusal
from fluxwerk.server.doors.form import Form
from fluxwerk.server.doors.refusal import RefusedError
from fluxwerk.server.doors.room import Room
from fluxwerk.server.doors.visit import Visit
from fluxwerk.server.errors import ServerError
from fluxwerk.server.request import read as read_request
from fluxwerk.types import Flow, HttpRequest, Response

# Seconds that a request waits for its images; the usual libraries give up after ten minutes.
LONGEST_WAIT = 1800.0
CLIENT_CLOSED = 400
# The account of a client that sends no key, where the server takes any key.
NO_KEY = "anonymous"
WANTED = ("true", "1")


class InnerServer(Protocol):
    """What the doors need of the server behind them."""

    def body(self, request: fastapi.Request, asked: HttpRequest, *, images: bool) -> AbstractAsyncContextManager[bytes]:
        """Judge the key and read a body, which may hold images; it is counted while the context lasts."""
        ...

    async def send(self, request: HttpRequest) -> Response:
        """Answer a request that a door makes in its client's name."""
        ...

    async def fetch(self, request: HttpRequest, budget: float | None = None) -> Response:
        """Fetch an image that is not kept here."""
        ...

    def now(self) -> float:
        """Seconds since 1970."""
        ...


@dataclass(frozen=True, slots=True)
class Door:
    """One path of a door: what answers it, how it writes a refusal, and what it prepares in a thread.

    With `images` a body may hold some. `stream` writes a refusal as the last event of a stream; a door without it does
    not stream.
    """

    flow: Callable[[Visit], Flow[Response]]
    refuse: Callable[[RefusedError], Response]
    images: bool = False
    prepare: Callable[[Form], Form] = lambda form: form
    stream: Callable[[RefusedError], bytes] | None = None


OPENAI: Mapping[tuple[str, str], Door] = {
    ("/images/generations", "POST"): Door(openai.generate, openai.refuse, stream=openai.error_event),
    ("/images/edits", "POST"): Door(
        openai.edit, openai.refuse, images=True, prepare=openai.prepare, stream=openai.error_event
    ),
    ("/models", "GET"): Door(openai.models, openai.refuse),
    ("/models/{id}", "GET"): Door(openai.model, openai.refuse),
}
AUTOMATIC: Mapping[tuple[str, str], Door] = {
    ("txt2img", "POST"): Door(automatic.text_to_image, automatic.refuse),
    ("img2img", "POST"): Door(automatic.image_to_image, automatic.refuse, images=True),
    ("options", "GET"): Door(automatic.show_options, automatic.refuse),
    ("options", "POST"): Door(automatic.set_options, automatic.refuse),
    ("sd-models", "GET"): Door(automatic.models, automatic.refuse),
    ("progress", "GET"): Door(automatic.progress, automatic.refuse),
    ("interrupt", "POST"): Door(automatic.interrupt, automatic.refuse),
    **{(name, "GET"): Door(automatic.listed(name), automatic.refuse) for name in automatic.LISTS},
}
DOORS: Mapping[tuple[str, str], Door] = {
    # A base URL may be given with `/v1` or without.
    **{(base + path, method): door for base in ("/v1", "") for (path, method), door in OPENAI.items()},
    **{(f"/sdapi/v1/{name}", method): door for (name, method), door in AUTOMATIC.items()},
    (f"{comfy.PREFIX}{{name:path}}{comfy.SUFFIX}", "POST"): Door(comfy.submit, comfy.refuse, images=True),
}


class Doorway:
    """Answers the requests at every door by asking the server behind it."""

    def __init__(self, server: InnerServer, aliases: Mapping[str, str]) -> None:
        self._server = server
        self._room: Room[Visit] = Room(aliases)

    def publish(self, app: fastapi.FastAPI) -> None:
        """Add the doors to the application."""
        for (path, method), door in DOORS.items():
            app.add_api_route(path, self._carry(door), methods=[method], include_in_schema=False)
            if method == "POST":
                app.add_api_route(path, _options, methods=["OPTIONS"], include_in_schema=False)

    def _carry(self, door: Door) -> Callable[[fastapi.Request], Awaitable[Answer]]:
        async def carry(request: fastapi.Request) -> Answer:
            return await self._answer(door, request)

        return carry

    async def _answer(self, door: Door, request: fastapi.Request) -> Answer:
        asked = _read(request)
        try:
            async with self._server.body(request, asked, images=door.images) as body:
                read = await asyncio.to_thread(_prepared, door, body, request.headers.get("content-type", ""))
                visit = Visit(read_request(asked), read, self._room, self._server.now())
                if door.stream and str(read.fields.get("stream", "")).lower() in WANTED:
                    return await self._stream(door, visit)
                return await self._whole(door, visit, request)
        except ClientDisconnect:
            return Answer(status_code=CLIENT_CLOSED)
        except RefusedError as refused:
            return _to_wire(door.refuse(refused))
        except ServerError as error:
            return _to_wire(door.refuse(refusal.of_server(error)))

    async def _whole(self, door: Door, visit: Visit, request: fastapi.Request) -> Answer:
        work = asyncio.create_task(self._drive(door, visit))
        gone = asyncio.create_task(_until_gone(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return _to_wire(work.result())
            return Answer(status_code=CLIENT_CLOSED)
        finally:
            gone.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError, RefusedError):
                await work

    async def _stream(self, door: Door, visit: Visit) -> Answer:
        """Answer as a stream once every task is accepted; a refusal before that is an ordinary answer."""
        parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        visit.show = parts.put_nowait
        work = asyncio.create_task(self._drive(door, visit))
        work.add_done_callback(lambda _: parts.put_nowait(None))
        if await parts.get() is None:
            return _to_wire(work.result())

        async def events() -> AsyncGenerator[bytes]:
            try:
                while (part := await parts.get()) is not None:
                    yield part
                try:
                    await work
                except RefusedError as refused:
                    if door.stream:
                        yield door.stream(refused)
            finally:
                work.cancel()

        return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _drive(self, door: Door, visit: Visit) -> Response:
        """Run a door's flow; whatever ends it early, its tasks are not left running for nobody."""
        home = f"{visit.request.origin}/"

        async def send(request: HttpRequest, budget: float | None = None) -> Response:
            if request.url.startswith(home):
                return await self._server.send(request)
            return await self._server.fetch(request, budget)

        try:
            with self._room.hold(visit):
                return await drive_async(door.flow(visit), send, WALL.now() + LONGEST_WAIT)
        except FluxwerkError as error:
            raise refusal.of_ending(error) from error
        finally:
            # What the same idempotency key will ask for again goes on.
            if visit.running and not visit.may_be_repeated:
                await asyncio.shield(drive_async(visit.give_up(), send))


def _prepared(door: Door, body: bytes, content_type: str) -> Form:
    return door.prepare(form.read(body, content_type))


async def _until_gone(request: fastapi.Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _options() -> Answer:
    return Answer(status_code=204, headers={"allow": "OPTIONS, POST"})


def _read(request: fastapi.Request) -> HttpRequest:
    """Read what came before the body, with the key where this server reads it."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return HttpRequest(request.method, str(request.url), b"", headers={**headers, "x-key": _key(headers)})


def _key(headers: Mapping[str, str]) -> str:
    """Find the key: `x-key`, a bearer token, the password of basic authentication, or `x-api-key`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if headers.get("x-key"):
        return headers["x-key"]
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic":
        with suppress(binascii.Error, UnicodeDecodeError):
            user, _, password = base64.b64decode(value).decode().partition(":")
            return password or user or NO_KEY
    return headers.get("x-api-key") or NO_KEY


def _to_wire(response: Response) -> Answer:
    return Answer(response.body, response.status, dict(response.headers))
