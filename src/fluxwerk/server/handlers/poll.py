"""A poll: how a task stands, with a fresh link once its image is there."""

from __future__ import annotations

import base64

from fluxwerk import imagefile
from fluxwerk.protocol import wire
from fluxwerk.server import requestlog
from fluxwerk.server.errors import invalid
from fluxwerk.server.inquiry import AskingFlow, ask
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Json, Outcome, Response, Status, Task


def poll(state: ServerState, request: ServerRequest, life: float | None = None) -> AskingFlow[Response]:
    """Say how a task stands; its link lives for `life` seconds, by default as long as the service's links do."""
    identity = request.query.get("id", "")
    if not identity:
        raise invalid([{"type": "missing", "loc": ["query", "id"], "msg": "Field required"}])
    now = state.now()
    job = yield from ask(lambda: state.tasks.find(identity, now), state.tasks.find_all, (identity, now))
    if job is None:
        return wire.write_status(Status(Task(identity, ""), "Task not found", Outcome.MISSING))
    requestlog.note(task=job.task.id, model=job.model.name)
    if not job.has_ended(now):
        details = (yield from ask(lambda: _place(state, job, now))) if job.stage == "waiting" else None
        running = Status(job.task, "Pending", Outcome.RUNNING, progress=job.progress, details=details)
        return wire.write_status(running, preview=preview(job))
    made = state.result(job, request.origin, now, life) if job.word == "Ready" else None
    status = Status(job.task, job.word, wire.OUTCOMES[job.word], cost=job.settled, details=job.details)
    return wire.write_status(status, result=made)


def _place(state: ServerState, job: TaskRecord, now: float) -> Json:
    """Say which of its account's waiting tasks this is, and estimate when an engine takes it up."""
    queue = state.tasks.queue
    position, pause = queue.position(job), queue.pause(job.account, job.model.pool, now)
    estimate = None if pause is None else round(position * pause, 1)
    return {"position": position, "estimate_seconds": estimate}


def preview(job: TaskRecord) -> Json:
    """Write what the engine shows of an image that is not finished, or `None`."""
    found = imagefile.measure(job.preview) if job.preview else None
    if job.preview is None or found is None:
        return None
    text = base64.b64encode(job.preview).decode("ascii")
    return {"image": f"data:{found.content_type};base64,{text}", "width": found.width, "height": found.height}
