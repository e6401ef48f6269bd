"""Delivery URLs: signed, unguessable, and dead after ten minutes, in the shape of the live ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fluxwerk.server.errors import ServerError
from fluxwerk.server.request import ServerRequest
from fluxwerk.types import Response

if TYPE_CHECKING:
    from fluxwerk.server.router import Service

LIFE = 600.0
VERSION = "2024-11-04"
STAMP = "%Y-%m-%dT%H:%M:%SZ"


def path(folder: str, suffix: str) -> str:
    """Name the image of a job: `folder` is 48 hexadecimal digits of chance."""
    return f"/results/{folder[:2]}/{folder[2:16]}/{folder[16:48]}/sample.{suffix}"


def folder(of: str) -> str | None:
    """Read the folder back from a path, or `None` if it is no path of ours."""
    match of.split("/"):
        case ["", "results", first, second, third, name] if name.startswith("sample."):
            return first + second + third
        case _:
            return None


def sign(secret: bytes, where: str, content_type: str, until: float) -> str:
    """Return the query that opens this path until that moment (seconds since 1970, rounded down)."""
    expiry = datetime.fromtimestamp(int(until), UTC).strftime(STAMP)
    claims = {"se": expiry, "sp": "r", "sv": VERSION, "sr": "b", "rsct": content_type}
    return urlencode({**claims, "sig": _signature(secret, where, claims)})


def verify(secret: bytes, where: str, query: Mapping[str, str], now: float) -> str | None:
    """Say why a link may not be followed, or `None` if it may."""
    claims = {name: query.get(name, "") for name in ("se", "sp", "sv", "sr", "rsct")}
    if not hmac.compare_digest(_signature(secret, where, claims).encode(), query.get("sig", "").encode()):
        return "the signature does not match"
    expiry = datetime.strptime(claims["se"], STAMP).replace(tzinfo=UTC)
    return "the link has expired" if now >= expiry.timestamp() else None


def deliver(service: Service, visit: ServerRequest) -> Response:
    """Hand out an image to whoever has a link that is true and alive; raises `ServerError`."""
    where = folder(visit.path)
    if where is None:
        raise ServerError("not_found", "Not Found")
    now = service.clock()
    fault = verify(service.secret, visit.path, visit.query, now)
    if fault:
        raise ServerError("forbidden", fault, detail=f"Forbidden: {fault}")
    job = service.books.by_folder.get(where)
    picture = service.books.picture(job) if job else None
    if job is None or picture is None:
        raise ServerError("not_found", "This image is no longer kept.", detail="Not Found")
    until = datetime.strptime(visit.query["se"], STAMP).replace(tzinfo=UTC).timestamp()
    headers = {
        "content-type": visit.query["rsct"],
        "cache-control": f"private, max-age={max(0, int(until - now))}",
        "x-content-type-options": "nosniff",
    }
    job.delivered = True
    return Response(200, headers, picture)


def _signature(secret: bytes, where: str, claims: Mapping[str, str]) -> str:
    text = "\n".join(["GET", where, *(f"{name}={claims[name]}" for name in sorted(claims))])
    return base64.b64encode(hmac.digest(secret, text.encode(), hashlib.sha256)).decode("ascii")
