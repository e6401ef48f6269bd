"""FastAPI around the service: it carries bytes to and from the wire and keeps the engine and the webhooks busy."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import fastapi
from fastapi.responses import Response as Answer
from fastapi_offline import FastAPIOffline
from starlette.requests import ClientDisconnect

from fluxwerk.drive import WALL
from fluxwerk.engines import Engine, LiveEngine
from fluxwerk.engines.threads import live
from fluxwerk.server import openapi, requestlog, survey, telemetry
from fluxwerk.server.bodies import BodyLimits, HeldBytes, HeldRequest
from fluxwerk.server.direct import DirectPaths
from fluxwerk.server.doors.doorway import Doorway
from fluxwerk.server.driving import FlowDriver
from fluxwerk.server.errors import ServerError
from fluxwerk.server.faults.connection import FaultyResponse
from fluxwerk.server.faults.effects import SpoiltResponse
from fluxwerk.server.fetch import Guard
from fluxwerk.server.handlers import results
from fluxwerk.server.handlers.submit import Admission
from fluxwerk.server.inquiry import result_of
from fluxwerk.server.page import routes
from fluxwerk.server.router import Router
from fluxwerk.server.state.accounts import digest_of
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.workers import BackgroundWorkers
from fluxwerk.types import HttpRequest, Response
from fluxwerk.version import VERSION

CLIENT_CLOSED = 400
NO_ROUTE = (404, 405)
LIVE = "/livez"
# Seconds for which what the headers of a request showed still holds once its body is there.
FRESH = 1.0
# Seconds for fetching all images of a submit together: a client that hears nothing for a minute must fear that it paid.
FETCHING = 30.0


def build(
    state: ServerState,
    engine: Engine | LiveEngine | None,
    guard: Guard | None = None,
    threads: int | None = None,
    *,
    fetching: float = FETCHING,
    limits: BodyLimits | None = None,
    aliases: Mapping[str, str] | None = None,
) -> fastapi.FastAPI:
    """Build the ASGI application; a simple engine renders on `threads` threads, one for each core by default.

    Without an engine the workers of other processes render.

    All images of a submit are fetched within `fetching` seconds; `limits` bound what bodies hold.  `aliases` map other
    names of models to those that they stand for, for clients of other services.
    """
    guard, driver = guard or Guard(), FlowDriver(blocks=state.store.blocks)
    endpoint = Endpoint(Router(state), guard, HeldBytes(limits or BodyLimits()), fetching, driver)
    workers = BackgroundWorkers(state, live(engine, threads) if engine else None, guard)

    @asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncGenerator[None]:
        async with workers.open():
            yield

    # FastAPI's own pages load their scripts from a CDN, and stay empty without internet.
    app = FastAPIOffline(title="fluxwerk", version=VERSION, lifespan=lifespan, openapi_url="/openapi.json")
    app.add_exception_handler(Exception, endpoint.report_mistake)
    for status in NO_ROUTE:
        app.add_exception_handler(status, endpoint.answer_unrouted)
    direct = {openapi.POLL: "GET", **dict.fromkeys(state.models, "POST")}
    app.add_middleware(DirectPaths, methods=direct, answer=endpoint.answer)
    openapi.publish_service(app, state.models, endpoint.answer, state.abilities)
    # Before the server's extensions, so that a list of models has both forms.
    Doorway(endpoint, aliases or {}).publish(app)
    openapi.publish_extensions(app, endpoint.answer)
    routes.publish(app, state, guard, driver)
    return app


class Endpoint:
    """Carries requests from FastAPI to the router and its answers back, within the bounds of what bodies may hold."""

    def __init__(self, router: Router, guard: Guard, held: HeldBytes, fetching: float, driver: FlowDriver) -> None:
        self._router = router
        self._guard = guard
        self._held = held
        self._fetching = fetching
        self._driver = driver

    async def answer(self, request: fastapi.Request) -> Answer:
        """Answer one request: judged by its headers first, then read."""
        http = _read(request)
        if request.url.path == LIVE:
            # Without a thread, all of which may wait for a storage: a restart would not help with that.
            return _to_wire(result_of(self._router.begin(replace(http, headers={}))))
        if request.method == "GET":
            # Nothing is read and nothing is held, and polls are most of what a server answers.
            together = request.url.path == openapi.POLL
            return _to_wire(await self._driver.drive(self._router.begin(http), self._guard.fetch, together=together))
        with telemetry.span(self._router.operation(http), "server", telemetry.incoming(http.headers)) as span:
            begun = WALL.now()
            answer = await self._answer_body(request, http)
            span.close_request(answer.status_code, requestlog.current())
            self._router.note_submit(answer.status_code, requestlog.current().model, WALL.now() - begun)
            return answer

    async def _answer_body(self, request: fastapi.Request, http: HttpRequest) -> Answer:
        try:
            # With a short body that is read first the state is asked only once.
            is_first = self._held.may_read_first(request)
            admission = None if is_first else await self._driver.call(lambda: self._router.admit(http))
            admitted = WALL.now()
            with self._held.open(_owner(http, request)) as mine:
                body = await (mine.read(request, admission.largest) if admission else mine.read_first(request))
                fresh = admission if WALL.now() - admitted < FRESH else None
                # A short body that was read first holds nobody up.
                return _to_wire(await self._carry(replace(http, body=body), mine, fresh, together=is_first))
        except ClientDisconnect:
            # The client is gone and reads nothing; the answer keeps its broken connection out of the error log.
            return Answer(status_code=CLIENT_CLOSED)
        except ServerError as error:
            refusal = error
            return _to_wire(await self._driver.call(lambda: self._router.refuse(http, refusal)))

    @asynccontextmanager
    async def body(self, request: fastapi.Request, asked: HttpRequest, *, images: bool) -> AsyncGenerator[bytes]:
        """Read the body of a request at a door, whose key is judged first; raises `ServerError`."""
        if request.method == "GET":
            yield b""
            return
        largest = await self._driver.call(lambda: self._router.admit_visit(asked, images=images))
        with self._held.open(_owner(asked, request)) as mine:
            yield await mine.read(request, largest)

    async def fetch(self, request: HttpRequest, budget: float | None = None) -> Response:
        """Fetch what a door's flow finds elsewhere, such as an image that is not kept here."""
        return await self._guard.fetch(request, budget)

    async def send(self, request: HttpRequest) -> Response:
        """Answer a request that a door makes in its client's name."""
        if request.method == "GET":
            # A door hands out bytes, which are better read here than fetched from where a link would lead.
            inline = replace(request, headers={**request.headers, results.INLINE: "1"})
            return await self._driver.drive(self._router.begin(inline), self._guard.fetch)
        with telemetry.span(self._router.operation(request), "server", telemetry.incoming(request.headers)) as span:
            response = await self._answer_door(request)
            span.close_request(response.status, requestlog.current())
            return response

    async def _answer_door(self, request: HttpRequest) -> Response:
        try:
            admission = await self._driver.call(lambda: self._router.admit(request))
            with self._held.open(digest_of(request.headers.get("x-key", ""))) as mine:
                mine.add(len(request.body))
                return await self._carry(request, mine, admission)
        except ServerError as error:
            refusal = error
            return await self._driver.call(lambda: self._router.refuse(request, refusal))

    def now(self) -> float:
        """Tell the time as the state does."""
        return self._router.state.clock()

    async def _carry(
        self, http: HttpRequest, mine: HeldRequest, admission: Admission | None, *, together: bool = False
    ) -> Response:
        """Have a request that is whole answered, with its images measured beside the event loop."""
        with survey.opened() as surveyed:

            async def fetch(call: HttpRequest, budget: float | None = None) -> Response:
                fetched = await self._guard.fetch(call, budget)
                mine.add(len(fetched.body))
                await surveyed.add_image(fetched.body)
                return fetched

            await surveyed.add_body(http.body)
            flow, deadline = self._router.begin(http, admission), WALL.now() + self._fetching
            answer = await self._driver.drive(flow, fetch, deadline, together=together)
            # What was accepted is on the disk before the client hears of it.
            await self._router.state.flush()
            return answer

    async def report_mistake(self, *_: object) -> Answer:
        """Answer 500; the server's own log has the details, which are not for the client."""
        return _to_wire(self._router.report_mistake())

    async def answer_unrouted(self, request: fastapi.Request, fault: Exception) -> Answer:
        """Answer what no route takes by the router too, so that these answers are like all others."""
        answer = _to_wire(await self._driver.drive(self._router.begin(_read(request)), self._guard.fetch))
        if answer.status_code in NO_ROUTE:
            answer.headers.update(getattr(fault, "headers", None) or {})
        return answer


def _owner(http: HttpRequest, request: fastapi.Request) -> str:
    """Name who a request's bytes are counted for; a request without a key counts for its address."""
    key = http.headers.get("x-key")
    return digest_of(key) if key else (request.client.host if request.client else "")


def _read(request: fastapi.Request) -> HttpRequest:
    # The names of headers are in lower case already, as ASGI wants them.
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}
    return HttpRequest(request.method, str(request.url), b"", headers=headers)


def _to_wire(response: Response) -> Answer:
    if isinstance(response, SpoiltResponse):
        return FaultyResponse(response)
    return Answer(response.body, response.status, dict(response.headers))
