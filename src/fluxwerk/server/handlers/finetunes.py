"""The service's questions about fine-tunes: an account of this server has none, and clients that ask find that out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from fluxwerk.protocol import wire
from fluxwerk.server.errors import ServerError, invalid
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Response

Route: TypeAlias = "Callable[[ServerState, ServerRequest], Response]"


def list_finetunes(state: ServerState, request: ServerRequest) -> Response:
    """List the account's fine-tunes: always none."""
    state.authenticate(request)
    return Response(200, wire.JSON, wire.dump({"finetunes": []}))


def finetune_details(state: ServerState, request: ServerRequest) -> Response:
    """Answer for one fine-tune: 422 without its id, and 404 for every id."""
    state.authenticate(request)
    if not request.query.get("finetune_id"):
        raise invalid([{"type": "missing", "loc": ["query", "finetune_id"], "msg": "Field required"}])
    raise ServerError("not_found", "This server has no fine-tunes.", detail="Finetune not found")


ROUTES: Mapping[tuple[str, str], Route] = {
    ("/v1/my_finetunes", "GET"): list_finetunes,
    ("/v1/finetune_details", "GET"): finetune_details,
}
