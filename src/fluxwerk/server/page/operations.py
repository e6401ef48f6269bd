"""The operator's numbers: the queue, how long tasks take, how they end, what they cost, and what waits.

They are for the operator of the server: for a browser on this machine, or for whoever has the operator's key.
"""

from __future__ import annotations

import hmac
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from statistics import quantiles
from typing import cast
from urllib.parse import urlsplit

from fluxwerk.client.proxy import is_loopback
from fluxwerk.protocol import wire
from fluxwerk.server.errors import ServerError
from fluxwerk.server.page import visits
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import sessions
from fluxwerk.server.state.account import NOTHING
from fluxwerk.server.state.accounts import digest_of
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Json, Response

OPERATOR_KEY = "FLUXWERK_OPERATOR_KEY"
COOKIE = "fluxwerk_ops"
PERCENTILES = 100


def show(state: ServerState, request: ServerRequest, address: str) -> Response:
    """Write every number; raises `ServerError` for everyone but the operator."""
    _check(state, request, address)
    now = state.forget()
    jobs = state.tasks.all(now)
    health = state.abilities.health()
    body: dict[str, Json] = {
        "at": now,
        "engine": {"name": state.engine, "state": health.word, "serving": health.serving, **health.details},
        "storage": state.storage_error,
        "queued": sum(1 for job in jobs if not job.has_ended(now) and job.began is None),
        "running": sum(1 for job in jobs if not job.has_ended(now) and job.began is not None),
        "slots": _slots(state, jobs, now),
        "render_seconds": _percentiles([job.ready_at - job.began for job in jobs if job.began and job.ready_at]),
        "wait_seconds": _percentiles([job.began - job.accepted for job in jobs if job.began]),
        "ended": dict(Counter(job.word for job in jobs if job.has_ended(now))),
        "failures": dict(Counter(_kind(job) for job in jobs if job.has_ended(now) and job.word != "Ready")),
        "webhooks": dict(Counter(job.webhook.state for job in jobs if job.webhook)),
        "refused": dict(state.metrics.refused),
        "spend": _spend(jobs, now),
    }
    return Response(200, {**wire.JSON, "cache-control": "no-store"}, wire.dump(body))


def enter(state: ServerState, request: ServerRequest) -> Response:
    """Exchange the operator's key for a session of its own; raises `ServerError`."""
    wanted = os.environ.get(OPERATOR_KEY, "")
    given = visits.text_of(request.body, "key")
    if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise ServerError("unknown_key", "This is not the operator's key.")
    return visits.opened(state, request, wanted, COOKIE)


def _check(state: ServerState, request: ServerRequest, address: str) -> None:
    wanted = os.environ.get(OPERATOR_KEY, "")
    if wanted:
        if hmac.compare_digest(request.key.encode(), wanted.encode()):
            return
        if sessions.visitor(state.secret, request, state.clock(), COOKIE) == digest_of(wanted):
            return
    host = urlsplit(request.origin).hostname or ""
    # A proxy on this machine speaks for others, and says so.
    here = is_loopback(address) and is_loopback(host) and "x-forwarded-for" not in request.headers
    if not here:
        text = f"These numbers are for the operator: ask on the server's own machine, or send {OPERATOR_KEY} as x-key."
        raise ServerError("forbidden", text)


def _slots(state: ServerState, jobs: Sequence[TaskRecord], now: float) -> list[Json]:
    """Count the tasks in flight of each pool, over all accounts, beside the slots that one account has."""
    held = Counter(job.model.pool for job in jobs if not job.has_ended(now))
    sizes = {model.pool: model.slots for model in state.models.values()}
    return [{"pool": pool, "held": held[pool], "slots_per_key": size} for pool, size in sizes.items()]


def _percentiles(seconds: Sequence[float]) -> Json:
    if not seconds:
        return None
    if len(seconds) == 1:
        return {"count": 1, "p50": round(seconds[0], 3), "p95": round(seconds[0], 3)}
    cuts = quantiles(seconds, n=PERCENTILES, method="inclusive")
    return {"count": len(seconds), "p50": round(cuts[49], 3), "p95": round(cuts[94], 3)}


def _kind(job: TaskRecord) -> str:
    details = cast("dict[str, Json] | None", job.details)
    code = details.get("error") if isinstance(details, dict) else None
    return f"{job.word}: {code}" if code and len(str(code)) < PERCENTILES else job.word


def _spend(jobs: Sequence[TaskRecord], now: float) -> list[Json]:
    """Sum what tasks cost by account, model and day; an account is named by the first digits of its key's SHA-256."""
    sums: defaultdict[tuple[str, str, str], list[Decimal | int]] = defaultdict(lambda: [NOTHING, 0])
    for job in jobs:
        cost = job.settled if job.has_ended(now) else job.task.cost
        day = datetime.fromtimestamp(job.accepted, UTC).strftime("%Y-%m-%d")
        entry = sums[job.account[:8], job.model.name, day]
        entry[0] += cost or NOTHING
        entry[1] += 1
    return [
        {"key": key, "model": model, "day": day, "credits": spent, "tasks": count}
        for (key, model, day), (spent, count) in sorted(sums.items(), key=lambda item: item[0][2], reverse=True)
    ]
