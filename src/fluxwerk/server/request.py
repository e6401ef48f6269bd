"""An HTTP request as the routes read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from fluxwerk.types import HttpRequest


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """Method, path, query (the last of several counts), headers in lower case, body, and how the client named us."""

    method: str
    path: str
    origin: str
    query: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def key(self) -> str:
        """The account's key, as it was sent."""
        return self.headers.get("x-key", "")


def read(http: HttpRequest) -> ServerRequest:
    """Read a request; HEAD counts as GET, since the wire drops the body."""
    parts = urlsplit(http.url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    method = "GET" if http.method == "HEAD" else http.method
    return ServerRequest(method, parts.path, f"{parts.scheme}://{parts.netloc}", query, http.headers, http.body)
