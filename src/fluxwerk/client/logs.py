"""Keeps secrets out of what the HTTP libraries log about our requests: signed URLs, and headers that name them.

Nothing here changes a logger that a program has set up.  A request carries what is logged of it: a URL whose text is
redacted, and the library's own trace extension, which is called before each record is written.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fluxwerk.protocol import trust

if TYPE_CHECKING:
    import httpx2

TRACED = tuple(logging.getLogger(f"httpcore2.{part}") for part in ("http11", "http2", "connection", "proxy", "socks"))
# The library of HTTP/2 that packs headers logs each of them, and nothing that a request carries could stop it.
PACKING = tuple(logging.getLogger(f"hpack.{part}") for part in ("hpack", "table"))
SECRET_HEADERS = ("x-key", "location")


def extensions(*, is_async: bool) -> dict[str, Any]:
    """Return the extensions of a request that redact what is logged of it; none unless something is logged."""
    if not any(logger.isEnabledFor(logging.DEBUG) for logger in TRACED):
        return {}
    return {"trace": _trace_async if is_async else _trace}


def quiet_url(url: httpx2.URL) -> httpx2.URL:
    """Return the same URL, whose text leaves out the query: httpx2 logs the text, and sends the parts."""
    import httpx2  # noqa: PLC0415  (only clients that were handed in need it)

    class QuietURL(httpx2.URL):
        def __str__(self) -> str:
            return trust.redact(super().__str__())

        def __repr__(self) -> str:
            return f"URL({str(self)!r})"

    return QuietURL(url)


def guard_packed_headers() -> None:
    """Keep the key out of the log of packed headers; only where HTTP/2 is used and that log is switched on."""
    for logger in PACKING:
        if logger.isEnabledFor(logging.DEBUG) and _names_no_secret not in logger.filters:
            logger.addFilter(_names_no_secret)


def _names_no_secret(record: logging.LogRecord) -> bool:
    text = record.getMessage().lower()
    return not any(name in text for name in SECRET_HEADERS)


def _trace(name: str, info: dict[str, Any]) -> None:
    # What is in `info` after an event is made for the log alone; before it, it is what the library works with.
    if name.endswith("receive_response_headers.complete"):
        info["return_value"] = "…"
    elif "exception" in info:
        info["exception"] = trust.redact(repr(info["exception"]))


async def _trace_async(name: str, info: dict[str, Any]) -> None:
    _trace(name, info)
