"""A refusal on its way through a door: this server's error, before a door writes it in its own words."""

from __future__ import annotations

import json
from typing import cast

from fluxwerk.errors import FluxwerkError, ModerationError, TaskTimeoutError
from fluxwerk.server.errors import ServerError
from fluxwerk.types import Json, Response

ERROR = 400
# The status of each of the server's errors in the words of other APIs, whatever dialect the server itself speaks.
STATUS = {"invalid_api_key": 401, "validation_error": 400}


class RefusedError(Exception):
    """A request that a door does not fulfil: HTTP status, the server's word for it, a sentence, the field at fault."""

    def __init__(
        self, status: int, error: str, message: str, *, field: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.field = field
        self.retry_after = retry_after


def check(response: Response) -> Response:
    """Return an answer of the server that is no error; raises `RefusedError` for one that is."""
    if response.status < ERROR:
        return response
    body = _object(response.body)
    error = str(body.get("error") or "internal_error")
    message = str(body.get("message") or f"The server answered {response.status}.")
    wait = response.headers.get("retry-after", "")
    raise RefusedError(
        STATUS.get(error, response.status),
        error,
        message,
        field=_field(body),
        retry_after=int(wait) if wait.isdigit() else None,
    )


def of_server(error: ServerError) -> RefusedError:
    """Turn an error that was raised before the request reached a handler."""
    word = error.case.error
    return RefusedError(STATUS.get(word, error.case.live), word, error.message, retry_after=error.retry_after)


def of_ending(error: FluxwerkError) -> RefusedError:
    """Turn what kept a task from becoming an image."""
    if isinstance(error, ModerationError):
        return RefusedError(400, "moderated", str(error))
    if isinstance(error, TaskTimeoutError):
        return RefusedError(504, "timeout", "The image took too long, and was given up. Nothing more is charged.")
    return RefusedError(500, "failed", str(error))


def _object(body: bytes) -> dict[str, Json]:
    try:
        value: Json = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Json]", value) if isinstance(value, dict) else {}


def _field(body: dict[str, Json]) -> str | None:
    """Name the first field at fault, from the live dialect or the guide's."""
    detail, details = body.get("detail"), body.get("details")
    if isinstance(detail, list) and detail:
        place = cast("list[dict[str, Json]]", detail)[0].get("loc")
        return str(cast("list[Json]", place)[-1]) if isinstance(place, list) and place else None
    return next(iter(cast("dict[str, Json]", details))) if isinstance(details, dict) and details else None
