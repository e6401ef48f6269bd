"""The routes of the page: its files, its session, and what a browser needs of images beyond the API.

Each is an extension and is published as one; images are decoded and packed in threads, never on the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeAlias

import fastapi
from fastapi.responses import Response as Answer
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from fluxwerk import imagefile
from fluxwerk.errors import StorageError, TransportError
from fluxwerk.protocol import wire
from fluxwerk.server import request as requests
from fluxwerk.server.driving import FlowDriver
from fluxwerk.server.errors import ServerError, unfit
from fluxwerk.server.fetch import Guard
from fluxwerk.server.handlers import tasks
from fluxwerk.server.page import archive, files, news, operations, tags, visits
from fluxwerk.server.page.files import PageFile
from fluxwerk.server.page.thumbnails import Thumbnails
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.state import ServerState, content_type
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import HttpRequest, Response

Handle: TypeAlias = Callable[[fastapi.Request], Awaitable[Answer]]

# The longest body that these routes read: a key, or a URL.
LONGEST_QUESTION = 16 * 1024
# How long a stream of news lasts before the browser connects again, in seconds.
NEWS_SECONDS = 3600.0
# An image is only shown: nothing in it may run, whatever a browser takes it for.
SANDBOX = {
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


def publish(app: fastapi.FastAPI, state: ServerState, guard: Guard, driver: FlowDriver) -> None:
    """Add the page and its routes to the application; `driver` asks the state as the other routes do."""
    page = PageRoutes(state, guard, driver)
    for path, file in files.load():
        app.add_api_route(path, _serve(file), methods=["GET", "HEAD"], include_in_schema=False)
    key: list[dict[str, Any]] = [{"name": "x-key", "in": "header", "required": False, "schema": {"type": "string"}}]
    named = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}, *key]
    many = [{"name": "ids", "in": "query", "required": True, "schema": {"type": "string"}}, *key]
    bounded = [{"name": "seconds", "in": "query", "required": False, "schema": {"type": "number"}}, *key]
    offers: tuple[tuple[str, str, Handle, str, list[dict[str, Any]]], ...] = (
        ("/v1/session", "GET", page.session, "say whose session this browser has", key),
        ("/v1/session", "POST", page.begin, "exchange a key for a session cookie", []),
        ("/v1/session", "DELETE", page.end, "end the browser's session", []),
        ("/v1/tasks/{id}/image", "GET", page.image, "fetch the image of a task", named),
        ("/v1/tasks/{id}/image", "DELETE", page.delete, "delete a task with its image, for good", named),
        ("/v1/tasks/{id}/thumbnail", "GET", page.thumbnail, "fetch a small copy of a task's image", named),
        ("/v1/archive", "GET", page.archive, "fetch the images of several tasks as a ZIP", many),
        ("/v1/sheet", "GET", page.sheet, "fetch the images of several tasks as a contact sheet", many),
        ("/v1/fetch", "POST", page.fetch, "fetch an image by its URL, as a submit would", key),
        ("/v1/events", "GET", page.events, "stream news of your tasks as server-sent events", bounded),
        ("/v1/ops/doubts/{id}", "POST", page.settle, "say whether a task in doubt was charged", named),
        ("/v1/tasks/{id}/tags", "PUT", page.tag, "give a task its tags", named),
        ("/v1/ops", "POST", page.enter, "exchange the operator's key for a session cookie", []),
        ("/v1/ops", "GET", page.operations, "numbers for the operator of this server", key),
    )
    for path, method, handle, summary, parameters in offers:
        app.add_api_route(
            path,
            handle,
            methods=[method],
            tags=["Extensions"],
            summary=summary,
            operation_id=f"{method.lower()}_{path.strip('/').translate(str.maketrans('/{}', '___'))}",
            openapi_extra={"parameters": parameters},
        )


def _answering(
    handle: Callable[[PageRoutes, fastapi.Request], Awaitable[Answer]],
) -> Callable[[PageRoutes, fastapi.Request], Awaitable[Answer]]:
    """Let a route answer a `ServerError`, and a state that cannot be asked, as every other route does."""

    @wraps(handle)
    async def answer(page: PageRoutes, request: fastapi.Request) -> Answer:
        try:
            return await handle(page, request)
        except ServerError as error:
            refusal = error
        except StorageError as error:
            refusal = page.state.unavailable(error)
        return _to_wire(refusal.answer(page.state.dialect))

    return answer


class PageRoutes:
    """Answers what the page asks beyond the API's own routes."""

    def __init__(self, state: ServerState, guard: Guard, driver: FlowDriver) -> None:
        self.state = state
        self._guard = guard
        self._ask = driver.call
        self._thumbnails = Thumbnails()

    @_answering
    async def session(self, request: fastapi.Request) -> Answer:
        """Say who is there."""
        asked = _read(request)
        return _to_wire(await self._ask(lambda: visits.show(self.state, asked)))

    @_answering
    async def begin(self, request: fastapi.Request) -> Answer:
        """Exchange a key for a session."""
        asked = _read(request, await _body(request))
        return _to_wire(await self._ask(lambda: visits.begin(self.state, asked)))

    @_answering
    async def end(self, request: fastapi.Request) -> Answer:
        """End a session."""
        return _to_wire(visits.end(self.state, _read(request)))

    @_answering
    async def image(self, request: fastapi.Request) -> Answer:
        """Send the image of a task; with `download` in the query the browser saves it."""
        asked = _read(request)
        job, data = await self._ask(lambda: self._found(asked))
        how = "attachment" if "download" in request.query_params else "inline"
        named = {"content-disposition": f'{how}; filename="{archive.file_name(job)}"'}
        return Answer(data, headers={"content-type": content_type(job), **named, **SANDBOX, **FOREVER})

    @_answering
    async def delete(self, request: fastapi.Request) -> Answer:
        """Delete a task that has ended, with its image."""
        asked = _read(request)
        answer = _to_wire(await self._ask(lambda: self._deleted(asked)))
        # A row that came back after a power cut would have its image rendered again.
        await self.state.flush()
        return answer

    @_answering
    async def thumbnail(self, request: fastapi.Request) -> Answer:
        """Send a small copy of a task's image."""
        asked = _read(request)
        job = await self._ask(lambda: tasks.own(self.state, asked))
        made = self._thumbnails.find(job.folder)
        if made is None:
            data = await self._ask(lambda: self._image(job))
            try:
                made = await run_in_threadpool(self._thumbnails.make, job.folder, data)
            except ValueError as wrong:
                raise ServerError("not_found", f"There is no thumbnail: {wrong}") from None
        named = {"content-disposition": 'inline; filename="thumbnail.webp"'}
        return Answer(made, headers={"content-type": "image/webp", **named, **SANDBOX, **FOREVER})

    @_answering
    async def archive(self, request: fastapi.Request) -> Answer:
        """Send several images as a ZIP."""
        asked = _read(request)
        packed = await run_in_threadpool(archive.pack, await self._ask(lambda: self._several(asked)))
        named = {"content-disposition": 'attachment; filename="fluxwerk-images.zip"'}
        return Answer(packed, headers={"content-type": "application/zip", **named, **SANDBOX})

    @_answering
    async def sheet(self, request: fastapi.Request) -> Answer:
        """Send several images as a contact sheet."""
        asked = _read(request)
        found = await self._ask(lambda: self._several(asked))
        made = await run_in_threadpool(archive.sheet, [data for _, data in found])
        named = {"content-disposition": 'attachment; filename="fluxwerk-sheet.jpg"'}
        return Answer(made, headers={"content-type": "image/jpeg", **named, **SANDBOX})

    @_answering
    async def fetch(self, request: fastapi.Request) -> Answer:
        """Fetch an image by its URL through the guard, so that the page can show it before it is paid for."""
        asked = _read(request, await _body(request))
        await self._ask(lambda: self.state.authenticate(asked))
        url = visits.text_of(asked.body, "url")
        if not url.startswith(("http://", "https://")):
            raise unfit("url", "Input should be an http or https URL")
        try:
            fetched = await self._guard.fetch(HttpRequest("GET", url))
        except TransportError as lost:
            raise unfit("url", f"The image cannot be fetched: {lost}") from None
        found = imagefile.measure(fetched.body)
        if fetched.status != fastapi.status.HTTP_200_OK or found is None:
            raise unfit("url", f"Its host answered {fetched.status} without a PNG, JPEG or WebP image")
        named = {"content-disposition": 'inline; filename="input"'}
        return Answer(fetched.body, headers={"content-type": found.content_type, **named, **SANDBOX})

    @_answering
    async def events(self, request: fastapi.Request) -> Answer:
        """Stream news of the account's tasks."""
        asked, seconds = _read(request), _seconds(request.query_params.get("seconds"))
        account = await self._ask(lambda: self.state.authenticate(asked))
        told = news.stream(self.state, account, seconds, self._ask)
        return StreamingResponse(told, media_type="text/event-stream", headers={"cache-control": "no-store"})

    @_answering
    async def enter(self, request: fastapi.Request) -> Answer:
        """Exchange the operator's key for a session."""
        asked = _read(request, await _body(request))
        return _to_wire(await self._ask(lambda: operations.enter(self.state, asked)))

    @_answering
    async def settle(self, request: fastapi.Request) -> Answer:
        """Settle a task in doubt."""
        address, task = _address(request), request.path_params["id"]
        asked = _read(request, await _body(request))
        return _to_wire(await self._ask(lambda: operations.settle(self.state, asked, address, task)))

    @_answering
    async def tag(self, request: fastapi.Request) -> Answer:
        """Give a task its tags, in place of those that it had."""
        asked = _read(request, await _body(request))
        return _to_wire(await self._ask(lambda: self._tagged(asked)))

    @_answering
    async def operations(self, request: fastapi.Request) -> Answer:
        """Send the operator's numbers, to loopback or for the operator's key."""
        asked, address = _read(request), _address(request)
        return _to_wire(await self._ask(lambda: operations.show(self.state, asked, address)))

    def _deleted(self, asked: ServerRequest) -> Response:
        job = tasks.own(self.state, asked)
        if not job.has_ended(self.state.clock()):
            raise ServerError("conflict", "This task has not ended; cancel it first.")
        self.state.tasks.discard(job)
        return Response(200, wire.JSON, wire.dump({"id": job.task.id, "deleted": True}))

    def _tagged(self, asked: ServerRequest) -> Response:
        job = tasks.own(self.state, asked)
        self.state.tasks.tag(job, tags.read(asked.body))
        return Response(200, wire.JSON, wire.dump(tasks.row(self.state, job)))

    def _found(self, asked: ServerRequest) -> tuple[TaskRecord, bytes]:
        job = tasks.own(self.state, asked)
        return job, self._image(job)

    def _image(self, job: TaskRecord) -> bytes:
        data = self.state.store.image(job.image) if job.has_ended(self.state.clock()) else None
        if data is None:
            raise ServerError("not_found", "This task has no image.", detail="Not Found")
        return data

    def _several(self, asked: ServerRequest) -> list[tuple[TaskRecord, bytes]]:
        names = [name for name in asked.query.get("ids", "").split(",") if name]
        if not 0 < len(names) <= archive.MOST_PACKED:
            raise unfit("ids", f"Input should be 1 to {archive.MOST_PACKED} ids of tasks, with commas between them")
        found: list[tuple[TaskRecord, bytes]] = []
        for name in dict.fromkeys(names):
            one = ServerRequest("GET", f"{tasks.FOLDER}/{name}", asked.origin, {}, asked.headers, b"")
            found.append(self._found(one))
            if sum(len(data) for _, data in found) > archive.LARGEST_ARCHIVE:
                raise unfit("ids", "These images have more than 512 MB; choose fewer")
        return found


def _serve(file: PageFile) -> Handle:
    async def answer(request: fastapi.Request) -> Answer:
        headers = {**files.HEADERS, "content-type": file.content_type, "etag": file.tag, "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == file.tag:
            return Answer(status_code=fastapi.status.HTTP_304_NOT_MODIFIED, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Answer(file.compressed, headers={**headers, "content-encoding": "gzip"})
        return Answer(file.body, headers=headers)

    return answer


def _address(request: fastapi.Request) -> str:
    return request.client.host if request.client else ""


def _seconds(text: str | None) -> float:
    try:
        return min(NEWS_SECONDS, max(0.0, float(text))) if text is not None else NEWS_SECONDS
    except ValueError:
        raise unfit("seconds", "Input should be a number") from None


async def _body(request: fastapi.Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_QUESTION:
            raise ServerError("too_large", f"This body may have at most {LONGEST_QUESTION} bytes.")
    return body


def _read(request: fastapi.Request, body: bytes = b"") -> ServerRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return requests.read(HttpRequest(request.method, str(request.url), body, headers=headers))


def _to_wire(response: Response) -> Answer:
    return Answer(response.body, response.status, dict(response.headers))
