"""A download: the bytes of an image, for a link that is genuine and has not expired."""

from __future__ import annotations

from fluxwerk.server import requestlog
from fluxwerk.server.errors import ServerError
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import links
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Response

# The header of a client that wants the bytes here, whatever the server does for others.
INLINE = "x-fluxwerk-inline"


def deliver(state: ServerState, request: ServerRequest) -> Response:
    """Answer with the image if the link is genuine and alive; raises `ServerError`."""
    where = links.folder(request.path)
    if where is None:
        raise ServerError("not_found", "Not Found")
    now = state.clock()
    fault = links.verify(state.secret, request.path, request.query, now)
    if fault:
        raise ServerError("forbidden", fault, detail=f"Forbidden: {fault}")
    job = state.tasks.find_folder(where, now)
    until = links.read_expiry(request.query["se"])
    sent_on = state.redirects and INLINE not in request.headers
    elsewhere = state.store.files.link(job.image, until - now) if job and job.image and sent_on else None
    if job and elsewhere:
        state.note_delivered(job)
        requestlog.note(task=job.task.id, model=job.model.name)
        return Response(302, {"location": elsewhere, "cache-control": "no-store"})
    image = state.store.image(job.image) if job else None
    if job is None or image is None:
        raise ServerError("not_found", "This image is no longer kept.", detail="Not Found")
    headers = {
        "content-type": request.query["rsct"],
        "cache-control": f"private, max-age={max(0, int(until - now))}",
        "x-content-type-options": "nosniff",
    }
    state.note_delivered(job)
    requestlog.note(task=job.task.id, model=job.model.name)
    return Response(200, headers, image)
