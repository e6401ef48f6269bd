"""What this server answers beyond the live API, each path with its methods; and which models it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from fluxwerk.engines import FullAbilities
from fluxwerk.protocol import wire
from fluxwerk.server.handlers import advice, health, metrics, quote, tasks
from fluxwerk.server.handlers.description import describe
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.fleet import FleetStore
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Json, Response

Route: TypeAlias = "Callable[[ServerState, ServerRequest], Response]"


def models(state: ServerState, _: ServerRequest) -> Response:
    """List the models, whether somebody serves them now, and what the engine of this process says of each.

    A fleet lists all models, since workers come and go; what they honour of each only they know.
    """
    rows: dict[str, Json] = {}
    for model in state.models.values():
        facts = state.abilities.facts(model)
        if facts is None and isinstance(state.store, FleetStore):
            facts = FullAbilities().facts(model)
        if facts is not None and model.name not in rows:
            told = {"engine": state.sole_engine(model), "served": state.serves(model)}
            rows[model.name] = {**describe(model), **told, **facts}
    return Response(200, wire.JSON, wire.dump({"engine": state.sole_engine(), "models": list(rows.values())}))


ROUTES: Mapping[tuple[str, str], Route] = {
    ("/v1/tasks", "GET"): tasks.listed,
    ("/v1/tasks/{id}", "GET"): tasks.shown,
    ("/v1/tasks/{id}", "DELETE"): tasks.cancelled,
    ("/v1/models", "GET"): models,
    ("/v1/price", "POST"): quote.price,
    ("/v1/advice", "POST"): advice.advise,
    ("/healthz", "GET"): health.health,
    ("/livez", "GET"): health.live,
    ("/readyz", "GET"): health.ready,
    ("/metrics", "GET"): metrics.metrics,
}


def pattern(path: str) -> str:
    """Return the path as the routes write it: one task stands for all of them."""
    folder, _, name = path.rpartition("/")
    return f"{tasks.FOLDER}/{{id}}" if folder == tasks.FOLDER and name else path
