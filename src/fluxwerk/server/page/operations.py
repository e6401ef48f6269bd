"""The operator's numbers: the queue, how long tasks take, how they end, what they cost, and what waits.

They are for the operator of the server: for a browser on this machine, or for whoever has the operator's key.
"""

from __future__ import annotations

import hmac
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import cast
from urllib.parse import urlsplit

from fluxwerk.client.proxy import is_loopback
from fluxwerk.ledger.database import Row
from fluxwerk.protocol import wire
from fluxwerk.server.errors import ServerError, unfit
from fluxwerk.server.page import visits
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import sessions
from fluxwerk.server.state.accounts import digest_of
from fluxwerk.server.state.applications import ApplicationEntry
from fluxwerk.server.state.doubts import UpstreamDoubt, UpstreamDoubts
from fluxwerk.server.state.figures import POOLS, Figures
from fluxwerk.server.state.overview import Overview, Percentiles
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Json, Response

OPERATOR_KEY = "FLUXWERK_OPERATOR_KEY"
COOKIE = "fluxwerk_ops"
LONGEST_CODE = 80
# The newest rows of the spend by day; `fluxwerk keys spend` has all of them.
MOST_ROWS = 200
VERDICTS = ("charged", "not charged")


def show(state: ServerState, request: ServerRequest, address: str) -> Response:
    """Write every number; raises `ServerError` for everyone but the operator."""
    check(state, request, address)
    now = state.now()
    overview, figures = Overview(state.store.database), Figures(state.store.database)
    with state.store.database.read():
        # Both are of one moment: a task that ended between them would be taken off the slots that it no longer holds.
        queue, slots = figures.queue(), figures.slots_used(now)
    waits, renders = overview.durations()
    endings, health = overview.endings(now), state.health()
    body: dict[str, Json] = {
        "at": now,
        "engine": {"name": state.sole_engine(), "state": health.word, "serving": health.serving, **health.details},
        "storage": state.condition.error,
        "queued": sum(queue.values()),
        "running": _running(queue, slots),
        "slots": _slots(slots),
        "render_seconds": _written(renders),
        "wait_seconds": _written(waits),
        "ended": _sums((row["word"], row["number"]) for row in endings),
        "failures": _sums((_kind(row), row["number"]) for row in endings if row["word"] != "Ready"),
        "webhooks": dict(overview.webhooks()),
        "workers": [_worker(row, now) for row in overview.processes(now)],
        "doubts": [_doubt(one) for one in UpstreamDoubts(state.store.database).listed()],
        "refused": dict(state.metrics.refused),
        "budgets": [_budget(one) for one in state.accounts.applications.entries() if one.revoked is None],
        "spent": sum(figures.spend().values()),
        "spend": [asdict(one) for one in state.accounts.applications.newest_spend(MOST_ROWS)],
    }
    return Response(200, {**wire.JSON, "cache-control": "no-store"}, wire.dump(body))


def _running(queue: Mapping[tuple[str, str], int], slots: Mapping[tuple[str, str], int]) -> int:
    """Count the tasks that hold a slot and are not queued; one that waits for a slot has none yet.

    A task that is queued again while its image was fetched has given its slot away, so the difference may be too low.
    """
    return max(0, sum(slots.values()) - sum(number for (_, stage), number in queue.items() if stage == "queued"))


def settle(state: ServerState, request: ServerRequest, address: str, task: str) -> Response:
    """Say whether the service charged for a task in doubt; raises `ServerError`."""
    check(state, request, address)
    sessions.check_origin(request)
    verdict = visits.text_of(request.body, "verdict")
    if verdict not in VERDICTS:
        raise unfit("verdict", f"Input should be {' or '.join(VERDICTS)}")
    if not UpstreamDoubts(state.store.database).settle(task, charged=verdict == "charged"):
        raise ServerError("not_found", "No task of this id is in doubt.")
    return Response(200, wire.JSON, wire.dump({"id": task, "settled": verdict}))


def enter(state: ServerState, request: ServerRequest) -> Response:
    """Exchange the operator's key for a session of its own; raises `ServerError`."""
    wanted = os.environ.get(OPERATOR_KEY, "")
    given = visits.text_of(request.body, "key")
    if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise ServerError("unknown_key", "This is not the operator's key.")
    return visits.opened(state, request, wanted, COOKIE)


def check(state: ServerState, request: ServerRequest, address: str) -> None:
    """Let only the operator on; raises `ServerError`."""
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


def _slots(used: Mapping[tuple[str, str], int]) -> list[Json]:
    """Count the tasks in flight of each pool, over all accounts, beside the slots that one account usually has."""
    held = _sums((pool, number) for (_, pool), number in used.items())
    return [{"pool": pool, "held": held.get(pool, 0), "slots_per_key": size} for pool, size in POOLS.items()]


def _sums(pairs: Iterable[tuple[str, int]]) -> dict[str, Json]:
    sums: Counter[str] = Counter()
    for name, number in pairs:
        sums[name] += number
    return dict(sums)


def _written(durations: Percentiles | None) -> Json:
    return None if durations is None else asdict(durations)


def _kind(row: Row) -> str:
    """Name a failure by its status and the code that came with it."""
    details: Json = json.loads(row["details"] or "null")
    code = cast("dict[str, Json]", details).get("error") if isinstance(details, dict) else None
    return f"{row['word']}: {str(code)[:LONGEST_CODE]}" if code else str(row["word"])


def _worker(row: Row, now: float) -> dict[str, Json]:
    since = round(max(0.0, now - row["beat"]), 1)
    models: list[str] = json.loads(row["models"] or "[]")
    return {"name": row["id"], "kind": row["kind"], "engine": row["engine"], "models": models, "silent_seconds": since}


def _doubt(one: UpstreamDoubt) -> dict[str, Json]:
    return {"id": one.task, "model": one.model, "booked": one.booked, "since": one.intended, "reason": one.reason}


def _budget(one: ApplicationEntry) -> dict[str, Json]:
    wanted = one.application
    return {"name": wanted.name, "budget": wanted.budget, "period": wanted.period, "spent_in_all": one.spent}
