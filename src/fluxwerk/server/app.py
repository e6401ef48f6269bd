"""FastAPI around the service: it carries bytes to and from the wire, publishes the OpenAPI, keeps an engine busy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import fastapi
from fastapi.responses import Response as Answer

from fluxwerk.catalog import Model
from fluxwerk.drive import drive_async
from fluxwerk.engines import Engine, LiveEngine
from fluxwerk.engines.threads import live
from fluxwerk.exchange import HttpRequest, Response
from fluxwerk.protocol import wire
from fluxwerk.server import extensions, schema
from fluxwerk.server.books import Job
from fluxwerk.server.fetch import Guard
from fluxwerk.server.service import Service
from fluxwerk.version import VERSION

# Ten references of 20 MB, as base64, and a prompt.
LARGEST_BODY = 300 * 1024 * 1024
NUMBER: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "null"}]}
SCHEMAS: dict[str, Any] = {
    "AsyncResponse": {
        "type": "object",
        "required": ["id", "polling_url"],
        "properties": {
            "id": {"type": "string"},
            "polling_url": {"type": "string"},
            "cost": NUMBER,
            "input_mp": NUMBER,
            "output_mp": NUMBER,
        },
    },
    "ResultResponse": {
        "type": "object",
        "required": ["id", "status"],
        "properties": {
            "id": {"type": "string"},
            "status": {"type": "string", "enum": [word for word in wire.OUTCOMES if word != "Failed"]},
            "result": {},
            "progress": NUMBER,
            "details": {},
            "preview": {},
            "cost": NUMBER,
        },
    },
    "CreditsResponse": {
        "type": "object",
        "required": ["credits"],
        "properties": {"credits": {"type": "number"}},
    },
}

log = logging.getLogger("fluxwerk.server")


def build(
    service: Service, engine: Engine | LiveEngine, guard: Guard | None = None, threads: int | None = None
) -> fastapi.FastAPI:
    """Build the ASGI application; a simple engine renders on `threads` threads, one for each core by default."""
    guard = guard or Guard()
    workshop = _Workshop(service, live(engine, threads))

    @asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncGenerator[None]:
        async with workshop.open():
            yield

    app = fastapi.FastAPI(title="fluxwerk", version=VERSION, lifespan=lifespan, openapi_url="/openapi.json")

    async def carry(request: fastapi.Request) -> Answer:
        body = await _body(request)
        if body is None:
            return _to_wire(wire.write_refusal(413, "Body too large", error="too_large", message="Body too large"))
        headers = {name.lower(): value for name, value in request.headers.items()}
        http = HttpRequest(request.method, str(request.url), body, headers=headers)
        return _to_wire(await drive_async(service.answer(http), guard.fetch))

    for path, model in service.models.items():
        _offer(app, path, model, carry, shown=service.abilities.facts(model) is not None)
    _offer_reads(app, carry)
    return app


class _Workshop:
    """The engine at work: jobs in, pictures out, never on the event loop."""

    def __init__(self, service: Service, engine: LiveEngine) -> None:
        self._service = service
        self._engine = engine
        self._running: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        async with self._engine.open():
            self._service.on_accept, self._service.on_cancel = self._begin, self._give_up
            try:
                yield
            finally:
                running = list(self._running.values())
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    def _begin(self, job: Job) -> None:
        self._running[job.task.id] = asyncio.create_task(self._make(job))

    def _give_up(self, job: Job) -> None:
        self._running[job.task.id].cancel()

    async def _make(self, job: Job) -> None:
        try:
            picture = await self._engine.paint(job.order, lambda progress: self._service.advance(job, progress))
        except Exception as trouble:
            log.exception("task %s failed in the engine %s", job.task.id, self._engine.name)
            self._service.fail(job, f"{type(trouble).__name__}: {trouble}")
        else:
            self._service.finish(job, picture)
        finally:
            del self._running[job.task.id]


Carry = Callable[[fastapi.Request], Awaitable[Answer]]


def _offer(app: fastapi.FastAPI, path: str, model: Model, carry: Carry, *, shown: bool) -> None:
    body = schema.inputs(model.name).model_json_schema()
    app.add_api_route(
        path,
        carry,
        methods=["POST"],
        tags=["Models"],
        summary=model.title,
        description=f"{model.best_for.capitalize()}. {model.note}".strip(),
        name=path.removeprefix("/v1/"),
        include_in_schema=shown,
        operation_id="submit_" + path.removeprefix("/v1/").replace("/", "_").replace("-", "_").replace(".", "_"),
        responses=_responses("AsyncResponse", 402, 403, 422, 429),
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "parameters": [_parameter("x-key", "header", required=True)],
        },
    )


def _offer_reads(app: fastapi.FastAPI, carry: Carry) -> None:
    task = {"parameters": [_parameter("id", "query", required=True)]}
    key = {"parameters": [_parameter("x-key", "header", required=True)]}
    reads = [
        ("/v1/get_result", "ask how a task stands", _responses("ResultResponse", 422), task),
        ("/v1/credits", "ask for the balance", _responses("CreditsResponse", 403, 422), key),
    ]
    for path, summary, responses, extra in reads:
        app.add_api_route(
            path, carry, methods=["GET"], tags=["Utility"], summary=summary, responses=responses, openapi_extra=extra
        )
    for path, summary in extensions.PATHS.items():
        method, extra = ("POST", {**task, **key}) if path == "/v1/cancel" else ("GET", {})
        app.add_api_route(path, carry, methods=[method], tags=["Extensions"], summary=summary, openapi_extra=extra)
    app.add_api_route("/results/{path:path}", carry, methods=["GET", "HEAD"], include_in_schema=False)


def _responses(name: str, *refusals: int) -> dict[int | str, dict[str, Any]]:
    good: dict[int | str, dict[str, Any]] = {200: _content(SCHEMAS[name], "it worked")}
    bad: dict[str, Any] = {"type": "object", "required": ["detail"], "properties": {"detail": {}}}
    return good | {status: _content(bad, "refused") for status in refusals}


def _content(schema_: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema_}}}


def _parameter(name: str, place: str, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": {"type": "string"}}


async def _body(request: fastapi.Request) -> bytes | None:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            return None
    return bytes(body)


def _to_wire(response: Response) -> Answer:
    return Answer(response.body, response.status, dict(response.headers))
