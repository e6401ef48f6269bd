"""The door of ComfyUI's BFL nodes: `/proxy/bfl/<model>/generate` is the submit of that model."""

from __future__ import annotations

from fluxwerk.protocol import wire
from fluxwerk.server.doors.refusal import RefusedError
from fluxwerk.server.doors.visit import Visit
from fluxwerk.types import Flow, Response

PREFIX, SUFFIX = "/proxy/bfl/", "/generate"


def submit(visit: Visit) -> Flow[Response]:
    """Submit what a node asks for; the node polls by itself."""
    name = visit.request.path.removeprefix(PREFIX).removesuffix(SUFFIX)
    return (yield from visit.ask("POST", f"/v1/{name}", wire.dump(visit.form.fields)))


def refuse(refused: RefusedError) -> Response:
    """Write a refusal with the sentence where the nodes look for it."""
    return wire.write_refusal(
        refused.status, refused.message, error=refused.error, message=refused.message, retry_after=refused.retry_after
    )
