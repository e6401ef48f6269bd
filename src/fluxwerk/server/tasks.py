"""Extensions about tasks: list one's own, look at one with its webhook's attempts, and give one up honestly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxwerk.exchange import Json, Response
from fluxwerk.protocol import trust, wire
from fluxwerk.server.books import Job
from fluxwerk.server.ending import failed
from fluxwerk.server.refusal import Refusal, invalid
from fluxwerk.server.visit import Visit

if TYPE_CHECKING:
    from fluxwerk.server.service import Service

FOLDER = "/v1/tasks"
MOST = 1000
USUAL = 100
CANCELLED = failed("cancelled", "cancelled by its owner")


def listed(service: Service, visit: Visit) -> Response:
    """List the account's tasks, the newest first; `status` chooses among them, `limit` bounds them."""
    account = service.account(visit)
    service.books.forget(service.clock())
    wanted, limit = visit.query.get("status"), _limit(visit)
    own = [job for job in reversed(service.books.jobs.values()) if job.account is account]
    rows = [row for row in (_row(service, job) for job in own) if wanted in (None, row["status"])]
    return Response(200, wire.JSON, wire.dump({"tasks": rows[:limit], "more": len(rows) > limit}))


def shown(service: Service, visit: Visit) -> Response:
    """Show one task of the account, with what became of its webhook."""
    return Response(200, wire.JSON, wire.dump(_row(service, _own(service, visit))))


def cancelled(service: Service, visit: Visit) -> Response:
    """Give a task up: one that waits ends at once, one that runs is the engine's to stop, one that ended stays so.

    The `outcome` is cancelled, stopping or ended.
    """
    job = _own(service, visit)
    outcome = "ended" if job.has_ended(service.clock()) else "stopping"
    if outcome == "stopping":
        service.on_cancel(job)
        if job.began is None or job.ready_at is not None:
            # It waits still, or its image is made and only held back.
            service.conclude(job, CANCELLED)
            outcome = "cancelled"
    body = wire.dump({**_row(service, job), "outcome": outcome})
    return Response(202 if outcome == "stopping" else 200, wire.JSON, body)


def _own(service: Service, visit: Visit) -> Job:
    account = service.account(visit)
    service.books.forget(service.clock())
    job = service.books.jobs.get(visit.path.removeprefix(f"{FOLDER}/"))
    if job is None or job.account is not account:
        raise Refusal("not_found", "This account has no such task", detail="Task not found")
    return job


def _limit(visit: Visit) -> int:
    text = visit.query.get("limit", str(USUAL))
    if not (text.isascii() and text.isdigit() and len(text) < len(str(MOST)) + 1 and 1 <= int(text) <= MOST):
        msg = f"Input should be a whole number from 1 to {MOST}"
        raise invalid([{"type": "int_parsing", "loc": ["query", "limit"], "msg": msg}])
    return int(text)


def _row(service: Service, job: Job) -> dict[str, Json]:
    ended = job.has_ended(service.clock())
    running = job.began is not None or job.ready_at is not None
    return {
        "id": job.task.id,
        "status": job.word if ended else "Pending",
        "stage": "ended" if ended else "running" if running else "queued",
        "model": job.model.name,
        "polling_url": job.task.polling_url,
        "cost": job.settled if ended else job.task.cost,
        "input_mp": job.task.input_mp,
        "output_mp": job.task.output_mp,
        "accepted": job.accepted,
        "ended": job.ready_at if ended else None,
        "progress": None if ended else job.progress,
        "details": job.details if ended else None,
        "webhook": _webhook(job),
    }


def _webhook(job: Job) -> Json:
    notice = job.notice
    if notice is None:
        return None
    attempts = [
        {"number": number, "at": attempt.at, "outcome": attempt.outcome}
        for number, attempt in enumerate(notice.attempts, 1)
    ]
    return {"url": trust.redact(notice.url), "state": notice.state, "attempts": attempts}
