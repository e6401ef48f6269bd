"""Every error that this server answers: one table, two dialects.

The live dialect has the service's own numbers and `detail`, and beside it what the guide's readers look for.  The
guide's dialect has the guide's numbers and its body alone, so that a client can be tried against either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from fluxwerk.protocol import wire
from fluxwerk.types import Json, Response

Dialect: TypeAlias = Literal["live", "guide"]
DIALECTS: tuple[Dialect, ...] = ("live", "guide")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of error: its status in either dialect, and the guide's word for it."""

    live: int
    guide: int
    error: str


CASES = {
    "no_key": Case(403, 401, "invalid_api_key"),
    "malformed_key": Case(422, 401, "invalid_api_key"),
    "unknown_key": Case(403, 401, "invalid_api_key"),
    "invalid": Case(422, 400, "validation_error"),
    "no_credits": Case(402, 402, "insufficient_credits"),
    "forbidden": Case(403, 403, "forbidden"),
    "not_found": Case(404, 404, "not_found"),
    "method": Case(405, 405, "method_not_allowed"),
    "conflict": Case(409, 409, "conflict"),
    "too_large": Case(413, 413, "too_large"),
    "slow": Case(408, 408, "request_timeout"),
    "busy": Case(429, 429, "rate_limit_exceeded"),
    "internal": Case(500, 500, "internal_error"),
    "closing": Case(503, 503, "closing"),
    "storage": Case(503, 503, "storage_unavailable"),
    "no_worker": Case(503, 503, "no_worker"),
    "full": Case(503, 503, "overloaded"),
}


class ServerError(Exception):
    """The answer to give instead: a case of the table, a sentence, and what the live service's `detail` holds."""

    def __init__(self, case: str, message: str, *, detail: Json = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.case = CASES[case]
        self.message = message
        self.detail = message if detail is None else detail
        self.retry_after = retry_after

    def answer(self, dialect: Dialect = "live") -> Response:
        """Write it for the readers of one dialect."""
        live = dialect == "live"
        return wire.write_refusal(
            self.case.live if live else self.case.guide,
            self.detail if live else None,
            error=self.case.error,
            message=self.message,
            retry_after=self.retry_after,
            details=None if live else _by_field(self.detail),
        )


def invalid(entries: Sequence[Mapping[str, Any]]) -> ServerError:
    """Refuse fields: `entries` has the shape of FastAPI's 422, each with `loc`, `msg` and `type`."""
    first = entries[0]
    where = ".".join(str(part) for part in first["loc"])
    return ServerError("invalid", f"{where}: {first['msg']}", detail=list(entries))


def unfit(field: str, reason: str, kind: str = "value_error") -> ServerError:
    """Refuse one field of the body."""
    return invalid([{"type": kind, "loc": ["body", field], "msg": reason}])


def _by_field(detail: Json) -> Json:
    if not isinstance(detail, list):
        return None
    entries = cast("list[dict[str, Json]]", detail)
    return {".".join(str(part) for part in entry["loc"][1:]) or "body": entry["msg"] for entry in entries}
