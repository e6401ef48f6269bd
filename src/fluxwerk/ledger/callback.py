"""The address a webhook is sent to: it carries the job's own token, so that only the service can call it.

A submit whose answer was lost is matched to its task when the webhook arrives: `ledger.accept_callback(token, task)`.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

NAME = "fluxwerk"


def address(webhook: str, token: str) -> str:
    """Write the URL to be called back for the job with this token."""
    parts = urlsplit(webhook)
    query = "&".join(part for part in (parts.query, urlencode({NAME: token})) if part)
    return urlunsplit(parts._replace(query=query))


def read_token(url: str) -> str | None:
    """Read the token from the URL (or the path with its query) that was called, or `None` if there is none."""
    found = parse_qs(urlsplit(url).query).get(NAME)
    return found[0] if found else None
