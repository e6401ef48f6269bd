"""The HTTP libraries' own log records, which hold complete signed URLs and headers with the key: redacted."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fluxwerk.protocol import trust

QUIET = (
    "httpx2",
    *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
    "hpack.hpack",
    "hpack.table",
)


def keep_urls_out_of_logs() -> None:
    """Redact the HTTP libraries' own log records: they hold complete signed URLs, and at DEBUG headers."""
    for name in QUIET:
        logger = logging.getLogger(name)
        if _redact_record not in logger.filters:
            logger.addFilter(_redact_record)


def _redact_record(record: logging.LogRecord) -> bool:
    shown: Callable[[], str] = record.getMessage
    text = trust.redact(shown())
    if record.name.startswith("hpack"):
        text = "a header"
    if "x-key" in text or "location" in text.lower():
        text = text.split("headers", 1)[0].split("[(", 1)[0] + "…"
    record.msg, record.args = text, ()
    return True
