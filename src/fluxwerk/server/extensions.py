"""What this server answers beyond the live API: which models it serves, how it is, and how to give a task up."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fluxwerk.errors import Fault
from fluxwerk.exchange import Json, Outcome, Response, Status, Task
from fluxwerk.protocol import wire
from fluxwerk.raster import measure

if TYPE_CHECKING:
    from fluxwerk.server.books import Account, Job
    from fluxwerk.server.service import Service

PATHS: Mapping[str, str] = {
    "/v1/models": "ask which models are served, and what each honours",
    "/healthz": "ask whether the engine is loading, ready or degraded",
    "/v1/cancel": "give up a task that has not ended",
}


def models(service: Service) -> Response:
    """List the models that the engine serves, with what it says of each."""
    rows: dict[str, Json] = {}
    for model in service.models.values():
        facts = service.abilities.facts(model)
        if facts is not None and model.name not in rows:
            told = {"name": model.name, "title": model.title, "path": model.path, "also": list(model.also)}
            rows[model.name] = {**told, "licence": model.licence or None, "engine": service.engine, **facts}
    return Response(200, wire.JSON, wire.dump({"engine": service.engine, "models": list(rows.values())}))


def health(service: Service) -> Response:
    """Say how the engine is; 503 tells a load balancer to send nothing here."""
    now = service.abilities.health()
    word = "closing" if service.closing else now.word
    body = {"status": word, "engine": service.engine, **now.details}
    return Response(200 if now.serving and not service.closing else 503, wire.JSON, wire.dump(body))


READS: Mapping[str, Callable[[Service], Response]] = {"/v1/models": models, "/healthz": health}


def cancel(service: Service, account: Account, identity: str) -> Response:
    """Give up a task of this account and answer as a poll does; what has ended stays as it is."""
    job = service.books.jobs.get(identity)
    if job is None or job.account is not account:
        return wire.write_status(Status(Task(identity, ""), "Task not found", Outcome.MISSING))
    if job.ready_at is None:
        service.fail(job, "cancelled by its owner")
        service.on_cancel(job)
    return service.poll({"id": identity}, job.task.polling_url.partition("/v1/")[0])


def closing(retry_after: int) -> Response:
    """Refuse a submit because the server finishes what it has and accepts nothing more."""
    text = "The server is closing down and accepts nothing more."
    return wire.write_refusal(503, text, error="closing", message=text, retry_after=retry_after)


def running(job: Job) -> Response:
    """Say of a task that it runs, how far it is, and what can be seen of it."""
    status = Status(job.task, "Pending", Outcome.RUNNING, progress=job.progress)
    return wire.write_status(status, preview=_preview(job))


def _preview(job: Job) -> Json:
    found = measure(job.preview) if job.preview else None
    if job.preview is None or found is None:
        return None
    text = base64.b64encode(job.preview).decode("ascii")
    return {"image": f"data:{found.content_type};base64,{text}", "width": found.width, "height": found.height}


def entry(fault: Fault) -> dict[str, Json]:
    """Write a fault as one entry of a 422."""
    hint = f" ({fault.hint})" if fault.hint else ""
    return {"type": "not_honoured", "loc": ["body", fault.field], "msg": f"{fault.allowed}{hint}"}
