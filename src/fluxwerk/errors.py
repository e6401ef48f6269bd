"""Every exception that fluxwerk raises, as a tree.

FluxwerkError:
    ├── InvalidUsageError          wrong arguments, found before anything was sent; `faults` names every field
    │   ├── UnknownModelError      the catalogue has no model of this name
    │   ├── UnknownPriceError      the price of this model is not public, so there is no estimate
    │   └── MissingKeyError        no API key was given
    ├── TransportError             no response arrived
    │   ├── ConnectionFailedError  nothing was sent: safe to repeat
    │   └── NoResponseError        sent, without a complete response
    ├── InDoubtError               a submit was sent and its response is unknown: it may have been charged
    ├── APIStatusError             the service answered with an error status
    │   ├── AuthenticationError    401, 403, or 422 for a malformed key
    │   ├── InsufficientCreditsError  402
    │   ├── InvalidRequestError    400, 422, with the `faults`
    │   └── RateLimitError         429, 503, with `retry_after` in seconds
    ├── TaskFailedError            the task ended without an image
    │   ├── ModerationError        `stage` is "request" or "content", with `reasons`
    │   └── TaskNotFoundError      the service does not know the task
    ├── UntrustedURLError          a response holds a URL that must not be followed
    ├── InvalidSignatureError      the signature of a webhook is missing or wrong
    ├── InvalidWebhookError        a webhook cannot be read: too large, not JSON, without a task
    ├── LinkExpiredError           the delivery link expired, and so did a new one
    ├── TaskTimeoutError           the deadline passed, also a `TimeoutError`; the task may still finish
    ├── ConflictError              another process has changed the job; nothing was written
    └── StorageError               the ledger or the storage cannot be written: disk full, permission or network lost

Each carries the `task` it concerns, if there is one, because the task is paid for.

"""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from fluxwerk.types import Json, Request, Task

SHOWN = 60
# A task's id and URL come from outside: longer ones, in characters, stay out of messages.
LONGEST_ADDRESS = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong field of a request: its name, its value, what is allowed, and a hint what to do next."""

    field: str
    value: Json
    allowed: str
    hint: str = ""

    def __str__(self) -> str:
        """Format the fault as one line of an error message."""
        shown = "" if self.value is None else f" = {shorten(self.value)}"
        return f"{self.field}{shown}: {self.allowed}" + (f" ({self.hint})" if self.hint else "")


def shorten(value: Json) -> str:
    """Format a value for an error, cut to a short length."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def collect_later(task: Task) -> str:
    """Return the advice to download the image of a task later, as a command where it is short enough."""
    if len(task.id) + len(task.polling_url) > LONGEST_ADDRESS:
        return "collect it later with the `task` of this error: its id and its polling_url."
    # Both values come from the service and are pasted into a shell, so they are quoted.
    return f"collect it later with `fluxwerk wait {quote(task.id)} --polling-url {quote(task.polling_url)}`."


class FluxwerkError(Exception):
    """The base of every exception; `task` is the paid task it concerns, if any."""

    def __init__(self, message: str = "", *, task: Task | None = None) -> None:
        super().__init__(message)
        self.task = task


class InvalidUsageError(FluxwerkError):
    """Wrong arguments, found before anything was sent; `faults` names every field."""

    def __init__(self, message: str = "", *, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        indent = "  " if message or len(self.faults) > 1 else ""
        lines = [message, *(f"{indent}{fault}" for fault in self.faults)]
        super().__init__("\n".join(line for line in lines if line))

    def __reduce__(self) -> tuple[type[InvalidUsageError], tuple[str], dict[str, object]]:
        """Keep the whole message when the error crosses to another process."""
        return type(self), (str(self),), self.__dict__


class UnknownModelError(InvalidUsageError):
    """The catalogue has no model of this name."""


class UnknownPriceError(InvalidUsageError):
    """The price of this model is not public."""


class MissingKeyError(InvalidUsageError):
    """No API key was given."""


class TransportError(FluxwerkError):
    """No response arrived; `permanent` says that a repetition fails in the same way until a person mends the cause."""

    def __init__(self, message: str = "", *, permanent: bool = False, task: Task | None = None) -> None:
        super().__init__(message, task=task)
        self.permanent = permanent


class ConnectionFailedError(TransportError):
    """Nothing was sent, so repeating is safe."""


class NoResponseError(TransportError):
    """The HTTP request was sent, and no complete response arrived."""


class InDoubtError(FluxwerkError):
    """A submit was sent and its response is unknown: it may have been charged, so it is not repeated.

    `client.settle(error)` looks for evidence: `request`, `base` and `key` are what was sent, where to, and under which
    Idempotency-Key; `number` is the client's own.
    """

    def __init__(
        self,
        message: str = "",
        *,
        request: Request | None = None,
        base: str = "",
        key: str = "",
        task: Task | None = None,
    ) -> None:
        super().__init__(message, task=task)
        self.request = request
        self.base = base
        self.key = key
        self.number = 0


class APIStatusError(FluxwerkError):
    """The service answered with an error status, kept in `status`."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        faults: Iterable[Fault] = (),
        retry_after: float | None = None,
        task: Task | None = None,
    ) -> None:
        super().__init__(message, task=task)
        self.status = status
        self.faults = tuple(faults)
        self.retry_after = retry_after


class AuthenticationError(APIStatusError):
    """The key is missing, malformed, unknown or not allowed to do this."""


class InsufficientCreditsError(APIStatusError):
    """The account has too few credits; add some at https://dashboard.bfl.ai."""


class InvalidRequestError(APIStatusError):
    """The service refused the request as invalid; `faults` names the fields."""


class RateLimitError(APIStatusError):
    """Too many tasks in flight, or the service is overloaded; try again after `retry_after` seconds."""


class TaskFailedError(FluxwerkError):
    """The task ended without an image; `details` holds the reasons of the service, `cost` its charge in credits."""

    def __init__(
        self, message: str = "", *, details: Json = None, task: Task | None = None, cost: Decimal | None = None
    ) -> None:
        super().__init__(message, task=task)
        self.details = details
        self.cost = cost


class ModerationError(TaskFailedError):
    """Moderation stopped the task at the `stage` "request" (the input) or "content" (the output)."""

    def __init__(
        self,
        message: str = "",
        *,
        stage: str = "request",
        reasons: Iterable[str] = (),
        details: Json = None,
        task: Task | None = None,
        cost: Decimal | None = None,
    ) -> None:
        super().__init__(message, details=details, task=task, cost=cost)
        self.stage = stage
        self.reasons = tuple(reasons)


class TaskNotFoundError(TaskFailedError):
    """The service does not know the task: wrong id, other region, or task too old."""


class UntrustedURLError(FluxwerkError):
    """A response holds a URL that must not be followed."""


class InvalidSignatureError(FluxwerkError):
    """The signature of a webhook is missing or wrong."""


class InvalidWebhookError(FluxwerkError):
    """A webhook cannot be read: too large, not JSON, without a task or a status."""


class LinkExpiredError(FluxwerkError):
    """The delivery link expired before the download, and so did a new one."""


class TaskTimeoutError(FluxwerkError, TimeoutError):
    """The deadline passed; a submitted task may still finish and can be downloaded with its `task`."""

    def __str__(self) -> str:
        """Append the command that downloads the image later."""
        text = super().__str__()
        return f"{text} The task may still finish: {collect_later(self.task)}" if self.task else text


class ConflictError(FluxwerkError):
    """Another process has changed the job, so this transition was not written."""


class StorageError(FluxwerkError):
    """The ledger or the storage cannot be written: its disk is full, read-only or missing."""
