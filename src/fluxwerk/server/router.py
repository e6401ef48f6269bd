"""From a request to its handler, and from the handler's answer or error to the response.

`Router.answer` is a flow as the client's are: it yields a call for every image that it has to fetch, and returns the
answer.  So client and server meet face to face on a pretend clock, and FastAPI only carries bytes to and from the wire.
`Router.begin` also yields what it asks the state, so that requests that arrive together can ask together.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

from fluxwerk import catalog
from fluxwerk.errors import StorageError
from fluxwerk.protocol import wire
from fluxwerk.server import request, requestlog
from fluxwerk.server.bodies import LARGEST_QUESTION
from fluxwerk.server.errors import ServerError
from fluxwerk.server.faults import effects
from fluxwerk.server.faults.rules import ANSWER_DEEDS, FaultRule, Occasion
from fluxwerk.server.handlers import extensions, finetunes, limits, poll, results, submit
from fluxwerk.server.handlers.submit import Admission
from fluxwerk.server.inputs import largest_body
from fluxwerk.server.inquiry import AskingFlow, answered, result_of
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import links
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.accounts import digest_of, is_well_formed
from fluxwerk.server.state.queue import Slots
from fluxwerk.server.state.state import ServerState, occasion
from fluxwerk.types import Flow, HttpRequest, Json, Response

ERROR = 400
POOL = catalog.get_model("flux-2-pro")


class Router:
    """Answers HTTP requests from a `ServerState`, with the faults that its rules ask for."""

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self._largest = {path: largest_body(model, state.longest_prompt) for path, model in state.models.items()}

    def answer(self, http: HttpRequest, admission: Admission | None = None) -> Flow[Response]:
        """Answer one HTTP request as `begin` does, with each question to the state asked as it comes."""
        return answered(self.begin(http, admission))

    def begin(self, http: HttpRequest, admission: Admission | None = None) -> AskingFlow[Response]:
        """Answer one HTTP request; headers in lower case.

        What its `admission` found a moment ago is not asked again.
        """
        admitted = admission.account if admission else None
        asked = request.read(http)
        # The key is judged before the body is read, unless a rule chooses by the prompt.
        met = self._occasion(asked) if self.state.faults.rules else None
        rule = self.state.faults.meet(met) if met else None
        if rule and rule.strikes_first:
            return effects.instead(rule)
        try:
            response = yield from self._route(asked, rule, admitted)
        except ServerError as error:
            response = error.answer(self.state.dialect)
        except StorageError as error:
            response = self.state.unavailable(error).answer(self.state.dialect)
        response = yield from self._finished(asked, response, admitted)
        return effects.spoil(rule, response) if rule and rule.do in ANSWER_DEEDS else response

    def admit(self, http: HttpRequest) -> Admission:
        """Judge a request by its headers before its body is read, and return what was found.

        Raises `ServerError`.  Rules choose by the prompt, so with rules the body is read first.
        """
        asked = request.read(http)
        model = self.state.models.get(asked.path)
        if model is None or asked.method != "POST":
            return Admission(LARGEST_QUESTION)
        most = self._largest[asked.path]
        if self.state.faults.rules:
            return Admission(most)
        try:
            return submit.admit(self.state, model, asked, most)
        except StorageError as error:
            raise self.state.unavailable(error) from None

    def admit_visit(self, http: HttpRequest, *, images: bool) -> int:
        """Judge the key of a request at a door, and return how many bytes its body may have; raises `ServerError`."""
        self.state.authenticate(request.read(http))
        if not images:
            return LARGEST_QUESTION
        return max(self._largest.values())

    def operation(self, http: HttpRequest) -> str:
        """Name what a request with a body asks for, in one of few words."""
        model = self.state.models.get(request.read(http).path)
        return f"submit {model.name}" if model else http.method

    def note_submit(self, status: int, model: str | None, seconds: float) -> None:
        """Count how long a submit took that was accepted."""
        if model and status < ERROR:
            self.state.metrics.observe("submit", model, seconds)

    def refuse(self, http: HttpRequest, error: ServerError) -> Response:
        """Answer a request that could not be read; it is counted as every other error is."""
        return result_of(self._finished(request.read(http), error.answer(self.state.dialect)))

    def report_mistake(self) -> Response:
        """Answer for a mistake of the server's own, and ask the state nothing more; its own log has the details."""
        self.state.metrics.refused["500"] += 1
        text = "The server made a mistake; its log says which."
        return ServerError("internal", text).answer(self.state.dialect)

    def _route(self, asked: ServerRequest, rule: FaultRule | None, admitted: Account | None) -> AskingFlow[Response]:
        model = self.state.models.get(asked.path)
        if model and asked.method == "POST":
            requestlog.note(model=model.name)
            return (yield from submit.submit(self.state, model, asked, rule, admitted))
        if asked.path == "/v1/get_result" and asked.method == "GET":
            return (yield from poll.poll(self.state, asked, -1.0 if rule and rule.do == "expire" else None))
        if asked.path == "/v1/credits" and asked.method == "GET":
            return wire.write_credits(self.state.authenticate(asked).credits)
        if asked.path.startswith("/results/") and asked.method == "GET":
            if rule and rule.do == "expire":
                raise ServerError("forbidden", "the link has expired", detail="Forbidden: the link has expired")
            return results.deliver(self.state, asked)
        route = extensions.ROUTES.get((extensions.pattern(asked.path), asked.method))
        route = route or finetunes.ROUTES.get((asked.path, asked.method))
        if route:
            return route(self.state, asked)
        raise ServerError(
            *(("method", "Method Not Allowed") if self._knows(asked.path) else ("not_found", "Not Found"))
        )

    def _knows(self, path: str) -> bool:
        known = {"/v1/get_result", "/v1/credits", *(path for path, _ in (*extensions.ROUTES, *finetunes.ROUTES))}
        return path in self.state.models or extensions.pattern(path) in known

    def _finished(
        self, asked: ServerRequest, response: Response, account: Account | None = None
    ) -> AskingFlow[Response]:
        if response.status >= ERROR:
            self.state.metrics.refused[str(response.status)] += 1
        promised = replace(response, headers={**response.headers, **submit.promise(self.state)})
        try:
            return (yield from self._limited(asked, promised, account))
        except StorageError:
            # The answer stands; it only says nothing of slots.
            return promised

    def _limited(self, asked: ServerRequest, response: Response, account: Account | None) -> AskingFlow[Response]:
        """Add how many tasks a known account may still have in flight, and when the next slot may be free."""
        if limits.LIMIT in response.headers or not is_well_formed(asked.key):
            return response
        model = self.state.models.get(asked.path, POOL)
        if account is not None:
            # What was found before the request was answered is old by now.
            slots = self.state.tasks.slots(account.id, model.pool, self.state.clock())
        else:
            account = yield from self.state.ask_account(digest_of(asked.key), model.pool)
            if account is None:
                return response
            slots = Slots(account.standing.busy, account.standing.free)
        requestlog.note(key=account.shown)
        return replace(response, headers={**response.headers, **limits.write(self.state, account, model, slots)})

    def _occasion(self, asked: ServerRequest) -> Occasion | None:
        model = self.state.models.get(asked.path)
        if model and asked.method == "POST":
            return Occasion("submit", _prompt(asked.body), model.name)
        if asked.method == "GET" and asked.path == "/v1/get_result":
            return occasion("poll", self.state.tasks.find(asked.query.get("id", ""), self.state.clock()))
        if asked.method == "GET" and asked.path.startswith("/results/"):
            folder = links.folder(asked.path) or ""
            return occasion("download", self.state.tasks.find_folder(folder, self.state.clock()))
        return None


def _prompt(body: bytes) -> str:
    try:
        given: Json = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    prompt = cast("dict[str, Json]", given).get("prompt") if isinstance(given, dict) else None
    return prompt if isinstance(prompt, str) else ""
