"""A download: the bytes of an image, for a link that is genuine and has not expired."""

from __future__ import annotations

from fluxwerk.server import requestlog, telemetry
from fluxwerk.server.errors import ServerError
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import links
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Response

# The header of a client that wants the bytes here, whatever the server does for others.
INLINE = "x-fluxwerk-inline"


def deliver(state: ServerState, request: ServerRequest) -> Response:
    """Answer with the image if the link is genuine and alive; raises `ServerError`."""
    now = state.clock()
    job = _find(state, request, now)
    requestlog.note(task=job.task.id, model=job.model.name)
    with telemetry.span("deliver image", "server", job.trace, gen_ai__response__id=job.task.id):
        return _deliver(state, request, job, now)


def _find(state: ServerState, request: ServerRequest, now: float) -> TaskRecord:
    where = links.folder(request.path)
    if where is None:
        raise ServerError("not_found", "Not Found")
    fault = links.verify(state.secret, request.path, request.query, now)
    if fault:
        raise ServerError("forbidden", fault, detail=f"Forbidden: {fault}")
    job = state.tasks.find_folder(where, now)
    if job is None:
        raise _gone()
    return job


def _deliver(state: ServerState, request: ServerRequest, job: TaskRecord, now: float) -> Response:
    until = links.read_expiry(request.query["se"])
    sent_on = state.redirects and INLINE not in request.headers
    elsewhere = state.store.files.link(job.image, until - now) if job.image and sent_on else None
    if elsewhere:
        state.note_delivered(job)
        return Response(302, {"location": elsewhere, "cache-control": "no-store"})
    image = state.store.image(job.image)
    if image is None:
        raise _gone()
    headers = {
        "content-type": request.query["rsct"],
        "cache-control": f"private, max-age={max(0, int(until - now))}",
        "x-content-type-options": "nosniff",
    }
    state.note_delivered(job)
    return Response(200, headers, image)


def _gone() -> ServerError:
    return ServerError("not_found", "This image is no longer kept.", detail="Not Found")
