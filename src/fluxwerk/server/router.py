"""What the server does with a request: plain functions of request, state and time.

`Service.answer` is a flow as the client's are: it yields a call for every image that it has to fetch, and returns
the answer.  So client and server meet face to face on a pretend clock, and FastAPI only carries them to the wire.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import cast

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Abilities, FullAbilities, Order, RenderProgress
from fluxwerk.protocol import wire
from fluxwerk.server import request, webhooks
from fluxwerk.server.errors import Dialect, ServerError
from fluxwerk.server.faults import effects, endings
from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.faults.rules import ANSWER_DEEDS, FaultRule, Faults, Occasion, scripted
from fluxwerk.server.handlers import extensions, finetunes, poll, submit
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import keys, links
from fluxwerk.server.state.accounts import Account, Accounts, TaskRecord, is_well_formed
from fluxwerk.server.state.metrics import Metrics
from fluxwerk.server.webhooks import WebhookPolicy
from fluxwerk.types import Flow, HttpRequest, Json, Response

ERROR = 400
POOL = catalog.get_model("flux-2-pro")

Pace = Callable[[Order], float]


class Service:
    """The behaviour of the API over its books.

    `clock` tells the time in seconds since 1970, `entropy(n)` gives n unguessable bytes, `pace` how many seconds a job
    takes at least, `engine` is the name told with each image, `abilities` what it says about itself.  `on_accept` hears
    of each job to render, `on_cancel` of each to give up, and `on_end` of each whose ending, at its `ready_at`, is to
    be told by `tell`.  `policy` says where webhooks may go, `trouble` is scripted misbehaviour, and with `magic` a
    prompt may ask for an ending.  Links are signed with `secret` and live for `url_life` seconds.  While `closing`,
    nothing is accepted.  A `strict` service refuses what the live one ignores.
    """

    def __init__(
        self,
        books: Accounts,
        clock: Callable[[], float],
        *,
        engine: str = "offline",
        abilities: Abilities | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        pace: Pace = lambda _: 0.0,
        on_accept: Callable[[TaskRecord], object] = lambda _: None,
        on_end: Callable[[TaskRecord], object] = lambda _: None,
        url_life: float = links.LIFE,
        secret: bytes | None = None,
        dialect: Dialect = "live",
        policy: WebhookPolicy | None = None,
        trouble: Faults | Iterable[FaultRule] = (),
        magic: bool = True,
        strict: bool = False,
    ) -> None:
        self.books = books
        self.clock = clock
        self.engine = engine
        self.abilities = abilities or FullAbilities()
        self.entropy = entropy
        self.pace = pace
        self.on_accept = on_accept
        self.on_cancel: Callable[[TaskRecord], object] = lambda _: None
        self.on_end = on_end
        self.url_life = url_life
        self.secret = entropy(32) if secret is None else secret
        self.dialect: Dialect = dialect
        self.policy = policy or WebhookPolicy()
        self.strict = strict
        self.closing = False
        self.meter = Metrics()
        self.submitting: set[tuple[str, str]] = set()
        self._trouble = scripted(trouble)
        self._magic = magic
        self._models = {path: model for model in catalog.list_models().values() for path in model.paths()}

    @property
    def models(self) -> Mapping[str, Model]:
        """Which model answers at which path."""
        return self._models

    def answer(self, http: HttpRequest) -> Flow[Response]:
        """Answer one HTTP request; headers in lower case."""
        asked = request.read(http)
        # A body is not looked at before its key is, unless there is trouble to choose by its prompt.
        occasion = self._occasion(asked) if self._trouble.rules else None
        rule = self._trouble.meet(occasion) if occasion else None
        if rule and rule.strikes_first:
            return effects.instead(rule)
        try:
            response = yield from self._route(asked, rule)
        except ServerError as refusal:
            response = refusal.answer(self.dialect)
        response = self._finished(asked, response)
        return effects.spoil(rule, response) if rule and rule.do in ANSWER_DEEDS else response

    def refuse(self, http: HttpRequest, refusal: ServerError) -> Response:
        """Answer a request that whoever carries it could not take; counted and told like every other refusal."""
        return self._finished(request.read(http), refusal.answer(self.dialect))

    def account(self, asked: ServerRequest) -> Account:
        """Find whose key came with the request; raises `ServerError`."""
        if not asked.key:
            raise ServerError("no_key", "Send your key in the header x-key.", detail="Not authenticated")
        if not is_well_formed(asked.key):
            raise ServerError("malformed_key", "Invalid API key format")
        account = self.books.account(asked.key)
        if account is None:
            detail = "Not authenticated - Invalid Authentication"
            wrong = "is mistyped: its checksum is wrong" if keys.is_mistyped(asked.key) else "is unknown or revoked"
            raise ServerError("unknown_key", f"This key {wrong}.", detail=detail)
        return account

    def begin(self, job: TaskRecord, rule: FaultRule | None = None) -> None:
        """Have a job rendered, unless its prompt or a rule has decided how it ends."""
        self.meter.accepted[job.model.name] += 1
        decided = _decided(rule) or (endings.asked_for(job.order.prompt) if self._magic else None)
        if decided is None:
            self.on_accept(job)
        else:
            self.conclude(job, decided, self.clock() + self.pace(job.order))

    def resume(self) -> None:
        """Take up what another process left: jobs without an end, and webhooks that were not delivered."""
        for job in self.books.waiting():
            if job.bereft:
                self.conclude(job, endings.BEREFT)
            else:
                self.begin(job)
        for job in list(self.books.jobs.values()):
            if job.notice and job.notice.state == "pending":
                job.notice.state = "waiting"
            if job.ready_at is not None:
                self.on_end(job)

    def advance(self, job: TaskRecord, progress: RenderProgress) -> None:
        """Take the news of how far the engine is with a job."""
        job.began = self.clock() if job.began is None else job.began
        job.progress, job.preview = progress.share, progress.preview

    def finish(self, job: TaskRecord, picture: bytes) -> None:
        """Take the image that an engine made for a job."""
        if job.ready_at is not None:
            return
        now = self.clock()
        self.meter.render(now - (job.accepted if job.began is None else job.began))
        try:
            self.books.finish(job, picture, max(now, job.accepted + self.pace(job.order)))
        finally:
            # A disk that is full keeps nothing, but the image is there to be told of and to be fetched.
            self._ended(job)

    def fail(self, job: TaskRecord, reason: str) -> None:
        """Take the news that an engine could not make an image, and return the credits."""
        self.conclude(job, Ending("Error", {"error": reason}))

    def conclude(self, job: TaskRecord, decided: Ending, at: float | None = None) -> None:
        """End a job without an image, now or at a moment; one that has ended stays as it is."""
        if job.has_ended(self.clock()):
            return
        try:
            self.books.end(job, decided, self.clock() if at is None else at)
        finally:
            if decided.word:
                self._ended(job)

    def tell(self, job: TaskRecord) -> Flow[None] | None:
        """Return the flow that delivers a job's webhook, if one is due and nobody delivers it already."""
        told, now = job.notice, self.clock()
        if told is None or told.state != "waiting" or not job.has_ended(now):
            return None
        made = poll.result(self, job, job.task.polling_url.partition("/v1/")[0], now) if job.word == "Ready" else None
        body = webhooks.tell(job, made, job.ready_at or now)

        def saved() -> None:
            self.books.note(job)
            if told.state != "pending":
                self.meter.webhooks[told.state] += 1

        def meet() -> FaultRule | None:
            return self._trouble.meet(_about("webhook", job))

        return webhooks.deliver(told, body, self.policy, self.clock, saved=saved, meet=meet)

    def _route(self, asked: ServerRequest, rule: FaultRule | None) -> Flow[Response]:
        model = self._models.get(asked.path)
        if model and asked.method == "POST":
            return (yield from submit.submit(self, model, asked, rule))
        if asked.path == "/v1/get_result" and asked.method == "GET":
            return poll.poll(self, asked, -1.0 if rule and rule.do == "expire" else None)
        if asked.path == "/v1/credits" and asked.method == "GET":
            return wire.write_credits(self.account(asked).credits)
        if asked.path.startswith("/results/") and asked.method == "GET":
            if rule and rule.do == "expire":
                raise ServerError("forbidden", "the link has expired", detail="Forbidden: the link has expired")
            return links.deliver(self, asked)
        route = extensions.ROUTES.get((extensions.pattern(asked.path), asked.method))
        route = route or finetunes.ROUTES.get((asked.path, asked.method))
        if route:
            return route(self, asked)
        raise ServerError(
            *(("method", "Method Not Allowed") if self._knows(asked.path) else ("not_found", "Not Found"))
        )

    def _knows(self, path: str) -> bool:
        known = {"/v1/get_result", "/v1/credits", *(path for path, _ in (*extensions.ROUTES, *finetunes.ROUTES))}
        return path in self._models or extensions.pattern(path) in known

    def _finished(self, asked: ServerRequest, response: Response) -> Response:
        if response.status >= ERROR:
            self.meter.refused[str(response.status)] += 1
        return self._limited(asked, response)

    def _limited(self, asked: ServerRequest, response: Response) -> Response:
        """Tell a known account how many tasks it may still have in flight, and when the next slot may be free."""
        account = self.books.known(asked.key) if asked.key else None
        if account is None:
            return response
        model, now = self._models.get(asked.path, POOL), self.clock()
        busy = self.books.in_flight(account, model.pool, now)
        free = min((job.ready_at or now + submit.RETRY_AFTER for job in busy), default=now)
        limits = {
            "x-ratelimit-limit": str(model.slots),
            "x-ratelimit-remaining": str(self.books.free(account, model, now)),
            "x-ratelimit-reset": str(-int(-free // 1)),
        }
        return replace(response, headers={**response.headers, **limits})

    def _occasion(self, asked: ServerRequest) -> Occasion | None:
        model = self._models.get(asked.path)
        if model and asked.method == "POST":
            return Occasion("submit", _prompt(asked.body), model.name)
        if asked.method == "GET" and asked.path == "/v1/get_result":
            return _about("poll", self.books.jobs.get(asked.query.get("id", "")))
        if asked.method == "GET" and asked.path.startswith("/results/"):
            return _about("download", self.books.by_folder.get(links.folder(asked.path) or ""))
        return None

    def _ended(self, job: TaskRecord) -> None:
        self.meter.ended[job.word] += 1
        self.on_end(job)


def _about(place: str, job: TaskRecord | None) -> Occasion:
    if job is None:
        return Occasion(place)
    return Occasion(place, job.order.prompt, job.model.name, job.task.id)


def _prompt(body: bytes) -> str:
    try:
        given: Json = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    prompt = cast("dict[str, Json]", given).get("prompt") if isinstance(given, dict) else None
    return prompt if isinstance(prompt, str) else ""


def _decided(rule: FaultRule | None) -> Ending | None:
    match rule.do if rule else "":
        case "moderate":
            return endings.moderated(rule.stage, rule.reasons) if rule else None
        case "fail":
            return endings.failed()
        case "stick":
            return endings.FOREVER
        case _:
            return None
