"""Which URLs of strangers are followed at all, before anything is resolved."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from fluxwerk.protocol.trust import DISPUTED


def take_apart(url: str) -> SplitResult | None:
    """Read a plain http or https URL, or return `None` for one that parsers might read in two ways."""
    if DISPUTED.search(url) or not url.isascii():
        return None
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if good and parts.username is None and parts.password is None else None
