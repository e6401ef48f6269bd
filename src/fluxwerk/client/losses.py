"""What a failed HTTP request means: whether its first byte left, and whether a repetition can help."""

from __future__ import annotations

import os
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fluxwerk.errors import ConnectionFailedError, FluxwerkError, NoResponseError, TransportError
from fluxwerk.protocol import trust

if TYPE_CHECKING:
    from typing import Self

# The HTTP library's exceptions that say by their name that nothing was sent.
NEVER_LEFT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "InvalidURL",
        "UnicodeEncodeError",
        "UnicodeError",
    }
)
# No repetition mends these: the address itself cannot be asked.
PERMANENT = frozenset({"UnsupportedProtocol", "InvalidURL", "UnicodeEncodeError", "UnicodeError"})
SENDING = "send_request_headers.started"
PROXY_KEY_MISSING = "407"


class Departure:
    """Follows one request by the HTTP library's trace, up to the moment when its first byte leaves.

    What is given up before that moment never leaves afterwards, so the answer to "did it leave?" stays true.  `until`
    is a moment on the monotonic clock; with `certain` off the trace is trusted only once it has named an event.
    """

    def __init__(self, until: float = float("inf"), *, certain: bool = True) -> None:
        self._until = until
        self._certain = certain
        self._lock = threading.Lock()
        self._left = self._given_up = False

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Take in one event of the trace; raises `ConnectionFailedError` if the request may no longer leave."""
        self._certain = True
        # A CONNECT asks a proxy for a tunnel; the request itself comes after it.
        if not event.endswith(SENDING) or info["request"].method == b"CONNECT":
            return
        with self._lock:
            if self._given_up or time.monotonic() > self._until:
                raise ConnectionFailedError("No connection was ready before the deadline. Nothing was sent.")
            self._left = True

    def extend(self, extensions: Mapping[str, Any], *, is_async: bool) -> dict[str, Any]:
        """Add the trace of this request to its extensions, before the trace that they may hold."""
        also = extensions.get("trace")

        def trace(event: str, info: dict[str, Any]) -> None:
            self.watch(event, info)
            if also:
                also(event, info)

        async def trace_async(event: str, info: dict[str, Any]) -> None:
            self.watch(event, info)
            if also:
                await also(event, info)

        return {**extensions, "trace": trace_async if is_async else trace}

    def give_up(self) -> bool | None:
        """Forbid the request to leave from now on, and return whether it has left; `None` if that is not known."""
        with self._lock:
            self._given_up = True
            return self._left if self._left or self._certain else None


class Losses:
    """Keeps the HTTP library's exceptions in, since they carry URLs and headers; `loss` is to be raised instead.

    It is raised after the `with`, so that the library's exception does not hang on ours as its context.  Without a
    `departure` the name of the exception alone says whether the request left.
    """

    loss: TransportError

    def __init__(self, departure: Departure | None = None) -> None:
        self._departure = departure

    def __enter__(self) -> Self:
        # What the caller is handling already hangs on the library's exception as its context, and is not ours.
        self._outer = sys.exception()
        return self

    def __exit__(self, _: object, trouble: BaseException | None, trace: object) -> bool:
        if not isinstance(trouble, Exception) or isinstance(trouble, FluxwerkError):
            return False
        left = self._departure.give_up() if self._departure else None
        loss = read_loss(trouble, left=left, outer=self._outer)
        if loss is None:
            return False
        self.loss = loss
        return True


def check_certificate_store(url: str) -> None:
    """Raise `ConnectionFailedError` if this is an https URL and SSL_CERT_FILE names a file that cannot be used.

    The HTTP library finds out only after it has opened a connection, which it then forgets to close.
    """
    named = os.environ.get("SSL_CERT_FILE")
    if not named or not url.startswith("https:"):
        return
    try:
        _read_certificate_store(named)
    except OSError as fault:
        why = fault.strerror or str(fault)
    else:
        return
    text = f"SSL_CERT_FILE = {trust.quote(named)} cannot be read ({why}). Name a PEM file, or unset it."
    raise ConnectionFailedError(f"The service cannot be reached: {text}", permanent=True)


def read_loss(trouble: Exception, *, left: bool | None, outer: BaseException | None = None) -> TransportError | None:
    """Turn an exception of the HTTP library into ours; `None` for a fault that is not a lost request.

    `left` says whether the request left, `None` if only the exception's name can tell.  `outer` is the exception that
    was being handled before the request began.
    """
    permanent = _permanent_reason(trouble, outer)
    if permanent and not left:
        return ConnectionFailedError(f"The service cannot be reached: {permanent}", permanent=True)
    kind = type(trouble).__name__
    reason = trust.quote(f"{kind}: {trouble}".rstrip(": "))
    if not left and kind in NEVER_LEFT:
        return ConnectionFailedError(f"The service could not be reached ({reason}).", permanent=kind in PERMANENT)
    if not _is_loss(trouble):
        return None
    if left is False:
        return ConnectionFailedError(f"The service could not be reached ({reason}).")
    if kind == "TimeoutError":
        return NoResponseError("no whole answer came before the deadline")
    return NoResponseError(f"the answer was lost ({reason})")


def _is_loss(trouble: Exception) -> bool:
    # httpx2 and httpcore2 name their exceptions alike; the rest is what they let through from below.
    library = type(trouble).__module__.partition(".")[0]
    return library in ("httpx2", "httpcore2", "ssl", "anyio", "h11", "h2") or isinstance(trouble, OSError)


def _permanent_reason(trouble: BaseException, outer: BaseException | None) -> str | None:
    """Name what keeps every request from leaving until a person mends it, or `None`."""
    if type(trouble).__name__ == "ProxyError" and str(trouble).startswith(PROXY_KEY_MISSING):
        return "the proxy asks for a user and a password. Put them into its URL: http://user:password@host:port"
    found: BaseException | None = trouble
    while found is not None and found is not outer:
        if isinstance(found, ssl.SSLCertVerificationError):
            why = trust.quote(getattr(found, "verify_message", "") or str(found))
            return (
                f"its certificate was refused ({why}). Behind a proxy that inspects TLS, let SSL_CERT_FILE name your "
                "organisation's certificates; check this machine's clock as well."
            )
        found = found.__cause__ or found.__context__
    return None


@lru_cache(maxsize=8)
def _read_certificate_store(named: str) -> None:
    ssl.create_default_context(cafile=named)
