"""Extensions for who watches the server: whether it lives, whether it is ready, and how its engine is."""

from __future__ import annotations

from fluxwerk.errors import StorageError
from fluxwerk.protocol import wire
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.fleet import FleetStore
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Json, Response

UNAVAILABLE = 503


def health(state: ServerState, _: ServerRequest) -> Response:
    """Say how the engine is, or whether the fleet has workers; 503 tells a load balancer to send nothing here."""
    now = state.health()
    kept = state.condition.check()
    word = "closing" if state.is_closing else now.word if kept else "storage_unavailable"
    body = {"status": word, "engine": state.sole_engine(), **now.details}
    serving = now.serving and not state.is_closing and kept
    return _answer(body, good=serving)


def live(_: ServerState, __: ServerRequest) -> Response:
    """Answer 200 for as long as requests are answered at all: a restart would help with nothing else."""
    return _answer({"status": "live"}, good=True)


def ready(state: ServerState, _: ServerRequest) -> Response:
    """Say whether submits would be accepted and rendered, and which part is missing."""
    checks = {
        "accepting": "closing" if state.is_closing else "ok",
        "database": _database(state),
        "storage": "ok" if state.condition.check_storage() else "unavailable",
        "workers": _workers(state),
    }
    good = all(found == "ok" for found in checks.values())
    return _answer({"status": "ready" if good else "unavailable", "checks": checks}, good=good)


def _database(state: ServerState) -> str:
    try:
        state.store.database.ask("select 1 as one")
    except StorageError:
        return "unavailable"
    return "ok" if state.condition.check_database() else "unavailable"


def _workers(state: ServerState) -> str:
    """Say whether somebody renders: the engine of an embedded server, or a live worker of the fleet."""
    store = state.store
    if isinstance(store, FleetStore):
        try:
            return "ok" if store.served() else "none"
        except StorageError:
            return "unknown"
    engine = state.abilities.health()
    return "ok" if engine.serving else engine.word


def _answer(body: dict[str, Json], *, good: bool) -> Response:
    return Response(200 if good else UNAVAILABLE, wire.JSON, wire.dump(body))
