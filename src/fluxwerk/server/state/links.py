"""Delivery links: signed, unguessable, expired after ten minutes, in the form of the live service's."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

LIFE = 600.0
VERSION = "2024-11-04"
STAMP = "%Y-%m-%dT%H:%M:%SZ"


def path(folder: str, suffix: str) -> str:
    """Name the image of a job: `folder` is 48 hexadecimal digits of chance."""
    return f"/results/{folder[:2]}/{folder[2:16]}/{folder[16:48]}/sample.{suffix}"


def folder(of: str) -> str | None:
    """Read the folder back from a path, or `None` for any other path."""
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
    return "the link has expired" if now >= read_expiry(claims["se"]) else None


def read_expiry(stamp: str) -> float:
    """Read the moment that a link was signed for, in seconds since 1970."""
    return datetime.fromisoformat(stamp).timestamp()


def _signature(secret: bytes, where: str, claims: Mapping[str, str]) -> str:
    text = "\n".join(["GET", where, *(f"{name}={claims[name]}" for name in sorted(claims))])
    return base64.b64encode(hmac.digest(secret, text.encode(), hashlib.sha256)).decode("ascii")
