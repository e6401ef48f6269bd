"""A poll: how a task stands, with a fresh link once its image is there."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from fluxwerk import imagefile
from fluxwerk.protocol import wire
from fluxwerk.server.errors import invalid
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import links
from fluxwerk.server.state.accounts import TaskRecord
from fluxwerk.types import Json, Outcome, Response, Status, Task

if TYPE_CHECKING:
    from fluxwerk.server.router import Service


def poll(service: Service, visit: ServerRequest, life: float | None = None) -> Response:
    """Say how a task stands; its link lives for `life` seconds, by default as long as the service's links do."""
    identity = visit.query.get("id", "")
    if not identity:
        raise invalid([{"type": "missing", "loc": ["query", "id"], "msg": "Field required"}])
    now = service.clock()
    service.books.forget(now)
    job = service.books.jobs.get(identity)
    if job is None:
        return wire.write_status(Status(Task(identity, ""), "Task not found", Outcome.MISSING))
    if not job.has_ended(now):
        running = Status(job.task, "Pending", Outcome.RUNNING, progress=job.progress)
        return wire.write_status(running, preview=_preview(job))
    made = result(service, job, visit.origin, now, life) if job.word == "Ready" else None
    status = Status(job.task, job.word, wire.OUTCOMES[job.word], cost=job.settled, details=job.details)
    return wire.write_status(status, result=made)


def result(service: Service, job: TaskRecord, origin: str, now: float, life: float | None = None) -> Json:
    """Write what was made, with a link that is signed at this moment."""
    where = links.path(job.folder, job.order.output_format)
    content_type = raster_type(job)
    until = now + (service.url_life if life is None else life)
    ended = job.ready_at or now
    return {
        "sample": f"{origin}{where}?{links.sign(service.secret, where, content_type, until)}",
        "prompt": job.order.prompt,
        "seed": job.order.seed,
        "start_time": job.accepted,
        "end_time": ended,
        "duration": round(ended - job.accepted, 6),
        "engine": service.engine,
    }


def raster_type(job: TaskRecord) -> str:
    """Name the content type of a job's image."""
    return next(kind for kind, suffix in imagefile.SUFFIX.items() if suffix == job.order.output_format)


def _preview(job: TaskRecord) -> Json:
    found = imagefile.measure(job.preview) if job.preview else None
    if job.preview is None or found is None:
        return None
    text = base64.b64encode(job.preview).decode("ascii")
    return {"image": f"data:{found.content_type};base64,{text}", "width": found.width, "height": found.height}
