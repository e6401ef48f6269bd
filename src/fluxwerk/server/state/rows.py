"""Between a task and its row: columns for what is asked for, JSON for the order's options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from fluxwerk import catalog
from fluxwerk.engines import Canvas, Order
from fluxwerk.server.state.outgoing import DeliveryAttempt, OutgoingWebhook
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Json, Task

MILLION = Decimal(1_000_000)
# A moment that never comes: 30,000 years after 1970.
NEVER = 1e12
# What stands before and after each tag, so that one is found whole.
BAR = "|"


def millionths(credits_: Decimal | None) -> int | None:
    """Write credits as whole millionths, so that sums are exact in every database."""
    return None if credits_ is None else int((credits_ * MILLION).to_integral_value())


def credits_of(number: int | None) -> Decimal | None:
    """Read credits back."""
    return None if number is None else Decimal(number) / MILLION


def to_row(job: TaskRecord) -> dict[str, Any]:
    """Write the columns of a task that was just accepted."""
    task, order = job.task, job.order
    told = {
        "seed": order.seed,
        "width": order.width,
        "height": order.height,
        "output_format": order.output_format,
        "options": dict(order.options),
        "offset": list(order.canvas.offset) if order.canvas else None,
        "asked": dict(order.asked),
        "names": list(order.names),
        **({"cached": True} if job.cached else {}),
    }
    key, digest = job.idempotency or (None, None)
    return {
        "id": task.id,
        "account": job.account,
        "model": order.model,
        "pool": job.model.pool,
        "folder": job.folder,
        "stage": job.stage,
        "priority": job.priority,
        "word": job.word,
        "accepted": job.accepted,
        "cost": millionths(task.cost),
        "input_mp": None if task.input_mp is None else str(task.input_mp),
        "output_mp": None if task.output_mp is None else str(task.output_mp),
        "polling_url": task.polling_url,
        "prompt": order.prompt,
        "words": order.prompt.casefold(),
        "options": json.dumps(told, separators=(",", ":")),
        "inputs": json.dumps(job.inputs),
        "idempotency_key": key,
        "idempotency_digest": digest,
        "urgency": job.urgency,
        "trace": json.dumps(dict(job.trace)) if job.trace else None,
    }


def from_row(row: Mapping[str, Any]) -> TaskRecord:
    """Read a task; raises whatever a damaged row, or one of a release with other models, brings about."""
    told: dict[str, Json] = json.loads(row["options"])
    offset, made_prompt = told.pop("offset"), told.pop("made_prompt", None)
    cached = bool(told.pop("cached", False))
    told["names"] = tuple(told["names"])
    if row["image"]:
        # A service upstream may have made another format than was expected.
        told["output_format"] = row["image"].rpartition(".")[2]
    model = catalog.get_model(row["model"])
    task = Task(
        row["id"],
        row["polling_url"],
        model.name,
        credits_of(row["cost"]),
        None if row["input_mp"] is None else Decimal(row["input_mp"]),
        None if row["output_mp"] is None else Decimal(row["output_mp"]),
    )
    canvas = None if offset is None else Canvas(b"", None, (offset[0], offset[1]))
    return TaskRecord(
        task,
        row["account"],
        model,
        Order(row["model"], row["prompt"], canvas=canvas, id=row["id"], **told),
        row["accepted"],
        row["folder"],
        row["ready_at"],
        row["word"],
        None if row["details"] is None else json.loads(row["details"]),
        row["stage"],
        row["priority"],
        row["fence"],
        row["progress"],
        None if row["preview"] is None else bytes(row["preview"]),
        row["began"],
        credits_of(row["settled"]),
        _webhook(row),
        (row["idempotency_key"], row["idempotency_digest"]) if row["idempotency_key"] else None,
        tuple(json.loads(row["inputs"])),
        row["image"],
        made_prompt,
        cached,
        row["urgency"],
        row["number"],
        json.loads(row["trace"] or "{}"),
        tuple(tag for tag in row["tags"].split(BAR) if tag),
        row["engine"],
    )


def write_attempts(webhook: OutgoingWebhook) -> str:
    """Write what became of each attempt to deliver a webhook."""
    return json.dumps([asdict(attempt) for attempt in webhook.attempts])


def _webhook(row: Mapping[str, Any]) -> OutgoingWebhook | None:
    if row["hook_url"] is None:
        return None
    attempts = [DeliveryAttempt(**attempt) for attempt in json.loads(row["hook_attempts"])]
    return OutgoingWebhook(row["hook_url"], row["hook_secret"], row["hook_state"], attempts)
