"""An HTTP request as the routes read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
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
    path, origin, query = _split(http.url)
    method = "GET" if http.method == "HEAD" else http.method
    return ServerRequest(method, path, origin, query, http.headers, http.body)


@lru_cache(maxsize=256)
def _split(url: str) -> tuple[str, str, Mapping[str, str]]:
    """Read a URL once, since a request is read at each of its steps, and a task's polls have one URL."""
    parts = urlsplit(url)
    query = MappingProxyType(dict(parse_qsl(parts.query, keep_blank_values=True)))
    return parts.path, f"{parts.scheme}://{parts.netloc}", query
