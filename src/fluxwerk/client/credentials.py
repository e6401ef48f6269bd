"""The base URL of the service and the account's key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from fluxwerk.client.tracing import trace_headers
from fluxwerk.errors import MissingKeyError
from fluxwerk.protocol import trust
from fluxwerk.types import HttpRequest


@dataclass(frozen=True)
class Credentials:
    """Base URL, API key, and the `others`: regions to which a submit may fail over.

    `delivery_hosts` may deliver images by plain http.
    """

    base: str
    key: str = field(repr=False)
    others: tuple[str, ...] = ()
    delivery_hosts: frozenset[str] = frozenset()

    def headers(self, request: HttpRequest) -> dict[str, str]:
        """Return the headers of a request, with the key if it is keyed and its host may receive the key.

        A submit carries the trace of the program too.
        """
        headers = {"user-agent": self._user_agent, **request.headers}
        if request.keyed and trust.may_carry_key(request.url, self.base):
            headers["x-key"] = self.key
            if request.method == "POST":
                headers |= trace_headers()
        return headers

    @cached_property
    def _user_agent(self) -> str:
        from fluxwerk.version import USER_AGENT  # noqa: PLC0415  (reading the version costs start-up time)

        return USER_AGENT


def read_credentials(
    api_key: str | None, region: str | None, base: str | None, delivery_hosts: Iterable[str] = ()
) -> Credentials:
    """Read base URL and key from the arguments, or else from BFL_BASE_URL and BFL_API_KEY.

    Raises `MissingKeyError`, and `InvalidUsageError` for a base URL that cannot be right.
    """
    key = (api_key or os.environ.get("BFL_API_KEY", "")).strip()
    if not key:
        raise MissingKeyError(
            "No API key. Create one at https://dashboard.bfl.ai/get-started and set it: export BFL_API_KEY=...  "
            "To try everything without a key, use the offline engine: fluxwerk generate ... --offline"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise MissingKeyError(
            "The API key contains white space or characters that no key has. Copy it again from the dashboard."
        )
    if not (base or region):
        base = os.environ.get("BFL_BASE_URL")
    chosen = trust.base_url(region, base or None)
    return Credentials(chosen, key, trust.fallbacks(chosen), trust.delivery_hosts(delivery_hosts, chosen))
