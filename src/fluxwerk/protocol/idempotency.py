"""Whether a submit may be repeated: its Idempotency-Key, and which servers keep such keys.

The live service ignores the key.  A fluxwerk server says in each answer for how many seconds it keeps one: only there
a submit whose answer was lost is sent again, and is the same task.
"""

from __future__ import annotations

import hashlib

from fluxwerk.protocol import trust
from fluxwerk.protocol.retry import seconds_of
from fluxwerk.types import HttpRequest, Response

KEY_HEADER = "idempotency-key"
PROMISE_HEADER = "x-fluxwerk-idempotency"
OK = range(200, 300)
# Of a promise this much is relied on: the server counts from the acceptance, and a repetition has to reach it.
SHARE_OF_PROMISE = 0.9


def key_of(token: str) -> str:
    """Derive the key of a submit from its unguessable token, which itself is nobody's business."""
    return hashlib.sha256(f"fluxwerk idempotency {token}".encode()).hexdigest()


def write_promise(seconds: float) -> dict[str, str]:
    """Write the header that promises to keep keys for so many seconds from the acceptance on."""
    return {PROMISE_HEADER: str(int(seconds))}


def read_promise(response: Response) -> float:
    """Read for how many seconds a server keeps keys; 0 if it does not say so."""
    return seconds_of(response.headers.get(PROMISE_HEADER, "")) or 0.0


class Promises:
    """For how long each server keeps keys, as its last answer said; safe to share between threads."""

    def __init__(self) -> None:
        self._seconds: dict[trust.Origin, float] = {}

    def note(self, request: HttpRequest, response: Response) -> None:
        """Learn from an answer of a server; only the good answer to a GET ends a promise, since proxies answer too."""
        origin = trust.origin_of(request.url)
        said = read_promise(response)
        if origin and (said or (request.method == "GET" and response.status in OK)):
            self._seconds[origin] = said

    def seconds(self, url: str) -> float | None:
        """Return for how many seconds the server at this URL keeps keys, `None` if it was never heard.

        BFL's own hosts are known to ignore keys, unless they say otherwise.
        """
        origin = trust.origin_of(url)
        return self._seconds.get(origin, 0.0 if trust.is_home(origin) else None) if origin else None
