"""The published OpenAPI: the paths of the live service with their fields, and extensions marked as such."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import fastapi
from fastapi.responses import Response as Answer

from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Abilities
from fluxwerk.protocol import wire
from fluxwerk.server import schema
from fluxwerk.server.handlers import advice, extensions, quote

POLL = "/v1/get_result"
NUMBER: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "null"}]}
SCHEMAS: dict[str, Any] = {
    "AsyncResponse": {
        "type": "object",
        "required": ["id", "polling_url"],
        "properties": {
            "id": {"type": "string"},
            "polling_url": {"type": "string"},
            "cost": NUMBER,
            "input_mp": NUMBER,
            "output_mp": NUMBER,
        },
    },
    "AsyncWebhookResponse": {
        "type": "object",
        "required": ["id", "status", "webhook_url"],
        "properties": {
            "id": {"type": "string"},
            "polling_url": {"type": "string"},
            "status": {"type": "string"},
            "webhook_url": {"type": "string"},
            "cost": NUMBER,
            "input_mp": NUMBER,
            "output_mp": NUMBER,
        },
    },
    "ResultResponse": {
        "type": "object",
        "required": ["id", "status"],
        "properties": {
            "id": {"type": "string"},
            "status": {"type": "string", "enum": [word for word in wire.OUTCOMES if word != "Failed"]},
            "result": {},
            "progress": NUMBER,
            "details": {},
            "preview": {},
            "cost": NUMBER,
        },
    },
    "CreditsResponse": {
        "type": "object",
        "required": ["credits"],
        "properties": {"credits": {"type": "number"}},
    },
    "MyFinetunesResponse": {
        "type": "object",
        "required": ["finetunes"],
        "properties": {"finetunes": {"type": "array", "items": {}}},
    },
    "FinetuneDetailResponse": {
        "type": "object",
        "required": ["finetune_details"],
        "properties": {"finetune_details": {"type": "object"}},
    },
}
TASK: dict[str, Any] = {
    "type": "object",
    "required": ["id", "status", "stage", "model"],
    "properties": {
        "id": {"type": "string"},
        "status": {"type": "string"},
        "stage": {"type": "string", "enum": ["queued", "running", "ended"]},
        "model": {"type": "string"},
        "webhook": {},
        "cancelled": {"type": "boolean"},
        "was": {"type": "string", "enum": ["queued", "running", "ended"]},
    },
}
ANY: dict[str, Any] = {"type": "object"}
BAD: dict[str, Any] = {
    "type": "object",
    "properties": {"detail": {}, "error": {"type": "string"}, "message": {"type": "string"}},
}
LIMITS = {
    name: {"description": words, "schema": {"type": "integer"}}
    for name, words in (
        ("X-RateLimit-Limit", "tasks that may be in flight"),
        ("X-RateLimit-Remaining", "slots that are free"),
        ("X-RateLimit-Reset", "the time at which the next slot may be free, in seconds since 1970"),
    )
}

WARNING = {
    "X-Fluxwerk-Warning": {
        "description": "An extension: what in the body has no effect, such as a misspelt field",
        "schema": {"type": "string"},
    }
}

Carry = Callable[[fastapi.Request], Awaitable[Answer]]


def publish_service(app: fastapi.FastAPI, models: Mapping[str, Model], carry: Carry, abilities: Abilities) -> None:
    """Add the live service's paths to the application, with their requests and responses; polls are the most frequent.

    The paths of models that the engine does not serve answer with that reason and are not published.
    """
    _offer_reads(app, carry)
    for path, model in models.items():
        _offer_model(app, path, model, carry, shown=abilities.facts(model) is not None)


def publish_extensions(app: fastapi.FastAPI, carry: Carry) -> None:
    """Add the paths that only this server has, and that of its images."""
    _offer_extensions(app, carry)
    app.add_api_route("/results/{path:path}", carry, methods=["GET", "HEAD"], include_in_schema=False)


def _offer_model(app: fastapi.FastAPI, path: str, model: Model, carry: Carry, *, shown: bool) -> None:
    idempotency = _parameter("Idempotency-Key", "header", required=False)
    idempotency["description"] = "An extension: the same key with the same body is the same task."
    responses = _responses(
        {"anyOf": [SCHEMAS["AsyncResponse"], SCHEMAS["AsyncWebhookResponse"]]},
        *(400, 401, 402, 403, 409, 413, 422, 429, 503),
    )
    responses[200]["headers"] = LIMITS | WARNING
    app.add_api_route(
        path,
        carry,
        methods=["POST"],
        tags=["Models"],
        summary=model.title,
        description=f"{model.best_for.capitalize()}. {model.note}".strip(),
        name=path.removeprefix("/v1/"),
        include_in_schema=shown,
        operation_id="submit_" + path.removeprefix("/v1/").replace("/", "_").replace("-", "_").replace(".", "_"),
        responses=responses,
        openapi_extra={
            "requestBody": _body(schema.request_model(model.name).model_json_schema()),
            "parameters": [_parameter("x-key", "header", required=True), idempotency],
        },
    )


def _offer_reads(app: fastapi.FastAPI, carry: Carry) -> None:
    task = {"parameters": [_parameter("id", "query", required=True)]}
    key = {"parameters": [_parameter("x-key", "header", required=True)]}
    finetune = {"parameters": [_parameter("finetune_id", "query", required=True), *key["parameters"]]}
    reads = [
        (POLL, "ask for the status of a task", _responses(SCHEMAS["ResultResponse"], 400, 422), task),
        ("/v1/credits", "ask for the balance", _responses(SCHEMAS["CreditsResponse"], 401, 403, 422), key),
        (
            "/v1/my_finetunes",
            "list your fine-tunes: none on this server",
            _responses(SCHEMAS["MyFinetunesResponse"], 401, 403, 422),
            key,
        ),
        (
            "/v1/finetune_details",
            "ask about one fine-tune",
            _responses(SCHEMAS["FinetuneDetailResponse"], 401, 403, 404, 422),
            finetune,
        ),
    ]
    for path, summary, responses, extra in reads:
        app.add_api_route(
            path, carry, methods=["GET"], tags=["Utility"], summary=summary, responses=responses, openapi_extra=extra
        )


def _offer_extensions(app: fastapi.FastAPI, carry: Carry) -> None:
    key = _parameter("x-key", "header", required=True)
    one = [_parameter("id", "path", required=True), key]
    some = [
        key,
        *(_parameter(name, "query", required=False) for name in ("status", "model", "tag", "q", "before")),
        *(
            {**_parameter(name, "query", required=False), "schema": {"type": "number", "minimum": 0}}
            for name in ("since", "until")
        ),
        {**_parameter("limit", "query", required=False), "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
    ]
    refused = (400, 401, 403, 404, 422)
    offers: dict[tuple[str, str], tuple[str, dict[int | str, dict[str, Any]], dict[str, Any]]] = {
        ("/v1/tasks", "GET"): ("list your tasks, the newest first", _responses(ANY, *refused), {"parameters": some}),
        ("/v1/tasks/{id}", "GET"): ("show a task and its webhook", _responses(TASK, *refused), {"parameters": one}),
        ("/v1/tasks/{id}", "DELETE"): ("cancel a task", _responses(TASK, *refused), {"parameters": one}),
        ("/v1/models", "GET"): ("list the models that are served, and which options each honours", _responses(ANY), {}),
        ("/v1/price", "POST"): (
            "estimate the cost of a request",
            _responses(ANY, 400, 413, 422),
            {"requestBody": _body(quote.Quote.model_json_schema())},
        ),
        ("/v1/advice", "POST"): (
            "give advice on a prompt",
            _responses(ANY, 400, 413, 422),
            {"requestBody": _body(advice.Question.model_json_schema())},
        ),
        ("/healthz", "GET"): ("tell whether the engine is loading, ready or degraded", _responses(ANY, 503), {}),
        ("/livez", "GET"): ("tell that the server answers", _responses(ANY), {}),
        ("/readyz", "GET"): ("tell whether submits are accepted and rendered", _responses(ANY, 503), {}),
        ("/metrics", "GET"): ("counts for Prometheus", {200: {"content": {"text/plain": {}}}}, {}),
    }
    for path, method in extensions.ROUTES:
        summary, responses, extra = offers[path, method]
        app.add_api_route(
            path,
            carry,
            methods=[method],
            tags=["Extensions"],
            summary=summary,
            operation_id=f"{method.lower()}_{path.strip('/').translate(str.maketrans('/{}', '___'))}",
            responses=responses,
            openapi_extra=extra,
        )


def _responses(good: dict[str, Any], *refusals: int) -> dict[int | str, dict[str, Any]]:
    answers: dict[int | str, dict[str, Any]] = {200: {**_content(good, "success"), "headers": LIMITS}}
    return answers | {status: _content(BAD, "refused") for status in refusals}


def _content(schema_: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema_}}}


def _body(schema_: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema_}}}


def _parameter(name: str, place: str, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": {"type": "string"}}
