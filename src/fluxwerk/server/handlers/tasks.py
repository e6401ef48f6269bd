"""Extensions about tasks: list one's own, look at one with its webhook's attempts, and give one up honestly."""

from __future__ import annotations

import re

from fluxwerk.protocol import trust, wire
from fluxwerk.server.errors import ServerError, invalid
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.search import Search
from fluxwerk.server.state.state import UNKNOWN_ENGINE, ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Json, Response

FOLDER = "/v1/tasks"
MOST = 1000
USUAL = 100
MOMENT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")


def listed(state: ServerState, request: ServerRequest) -> Response:
    """List the account's tasks, the newest first, as far as they fit the query; `limit` bounds them."""
    account = state.authenticate(request)
    now, limit = state.now(), _limit(request)
    found = state.tasks.search(account.id, _search(request), now, limit + 1)
    rows = [row(state, job) for job in found]
    return Response(200, wire.JSON, wire.dump({"tasks": rows[:limit], "more": len(rows) > limit}))


def shown(state: ServerState, request: ServerRequest) -> Response:
    """Show one task of the account, with what became of its webhook."""
    return Response(200, wire.JSON, wire.dump(row(state, own(state, request))))


def cancelled(state: ServerState, request: ServerRequest) -> Response:
    """Give a task up: one that waited never begins, the engine is asked to stop one that ran, one that ended stays so.

    `was` says which of the three it was; the credits come back in the first two.
    """
    job = own(state, request)
    was = _stage(state, job)
    if was != "ended":
        state.cancel(job)
        job = own(state, request)
    return Response(200, wire.JSON, wire.dump({**row(state, job), "cancelled": was != "ended", "was": was}))


def own(state: ServerState, request: ServerRequest) -> TaskRecord:
    """Find the task that a path names, if it is the account's own; raises `ServerError`."""
    account = state.authenticate(request)
    job = state.tasks.find(request.path.removeprefix(f"{FOLDER}/").partition("/")[0], state.now())
    if job is None or job.account != account.id:
        raise ServerError("not_found", "This account has no such task", detail="Task not found")
    return job


def _stage(state: ServerState, job: TaskRecord) -> str:
    """Say queued, running or ended; an image that is made and only held back counts as one that is being made."""
    if job.has_ended(state.clock()):
        return "ended"
    return "queued" if job.began is None and job.ready_at is None else "running"


def _search(request: ServerRequest) -> Search:
    query = request.query
    # No PostgreSQL takes it, and the state would look broken.
    wrong = [name for name, value in query.items() if "\0" in value]
    if wrong:
        msg = "Input should be a text without NUL characters"
        raise invalid([{"type": "string_unicode", "loc": ["query", name], "msg": msg} for name in wrong])
    return Search(
        status=query.get("status"),
        model=query.get("model"),
        tag=query.get("tag"),
        words=tuple(query.get("q", "").split()),
        since=_moment(request, "since"),
        until=_moment(request, "until"),
        before=query.get("before"),
    )


def _moment(request: ServerRequest, name: str) -> float | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not MOMENT.fullmatch(text):
        msg = "Input should be seconds since 1970, such as 1790000000"
        raise invalid([{"type": "float_parsing", "loc": ["query", name], "msg": msg}])
    return float(text)


def _limit(request: ServerRequest) -> int:
    text = request.query.get("limit", str(USUAL))
    if not (text.isascii() and text.isdigit() and len(text) < len(str(MOST)) + 1 and 1 <= int(text) <= MOST):
        msg = f"Input should be a whole number from 1 to {MOST}"
        raise invalid([{"type": "int_parsing", "loc": ["query", "limit"], "msg": msg}])
    return int(text)


def row(state: ServerState, job: TaskRecord) -> dict[str, Json]:
    """Write a task as the lists show it: how it stands, and what was asked for."""
    ended = job.has_ended(state.clock())
    return {
        "id": job.task.id,
        "status": job.word if ended else "Pending",
        "stage": _stage(state, job),
        "model": job.model.name,
        "polling_url": job.task.polling_url,
        "cost": job.settled if ended else job.task.cost,
        "input_mp": job.task.input_mp,
        "output_mp": job.task.output_mp,
        "accepted": job.accepted,
        "ended": job.ready_at if ended else None,
        "progress": None if ended else job.progress,
        "details": job.details if ended else None,
        "prompt": job.order.prompt,
        "seed": job.order.seed,
        "width": job.order.width,
        "height": job.order.height,
        "output_format": job.order.output_format,
        "engine": (job.engine or UNKNOWN_ENGINE) if ended and job.word == "Ready" else None,
        "options": dict(job.order.options),
        "tags": list(job.tags),
        "position": None if ended or job.stage != "waiting" else state.tasks.queue.position(job),
        "webhook": _webhook(job),
    }


def _webhook(job: TaskRecord) -> Json:
    webhook = job.webhook
    if webhook is None:
        return None
    attempts = [
        {"number": number, "at": attempt.at, "outcome": attempt.outcome}
        for number, attempt in enumerate(webhook.attempts, 1)
    ]
    return {"url": trust.redact(webhook.url), "state": webhook.state, "attempts": attempts}
