"""Everything that fluxwerk raises, as a tree.

FluxwerkError:
    ├── InvalidUsageError          the caller's mistake, found before anything was sent; `faults` names every field
    │   ├── UnknownModelError      the name is in no row of the catalogue
    │   ├── UnknownPriceError      the price of this model is not public, so nothing can be estimated
    │   └── MissingKeyError        no API key was given
    ├── TransportError             no answer arrived
    │   ├── ConnectionFailedError  nothing was sent: always safe to repeat
    │   └── NoResponseError        sent, no reply
    ├── InDoubtError               a submit left and its answer is unknown: it may have been charged
    ├── APIStatusError             the service answered with an error status
    │   ├── AuthenticationError    401, 403, or 422 for a malformed key
    │   ├── InsufficientCreditsError  402
    │   ├── InvalidRequestError    400, 422, with the `faults`
    │   └── RateLimitError         429, 503, with `retry_after` in seconds
    ├── TaskFailedError            the task ended without an image
    │   ├── ModerationError        `stage` is "request" or "content", with `reasons`
    │   └── TaskNotFoundError      the service does not know the task
    ├── UntrustedURLError          a response named a URL that must not be followed
    ├── InvalidSignatureError      a webhook does not prove that the service sent it
    ├── InvalidWebhookError        a webhook is proven and still cannot be read: too large, not JSON, without a task
    ├── LinkExpiredError           the link died, and a fresh one died as well
    ├── TaskTimeoutError           the deadline passed, also a `TimeoutError`; the task may still finish
    ├── ConflictError              another process has moved the job on; nothing was written
    └── StorageError               the ledger or the storage cannot be written: a full disk, a lost right or network

Each carries the `task` if there is one, because the task is what was paid for.

"""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from fluxwerk.types import Json, Task

SHOWN = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: the field, its value as far as it can be shown, and what is allowed."""

    field: str
    value: Json
    allowed: str
    hint: str = ""

    def __str__(self) -> str:
        """Read as one line of an error message."""
        shown = "" if self.value is None else f" = {shorten(self.value)}"
        return f"{self.field}{shown}: {self.allowed}" + (f" ({self.hint})" if self.hint else "")


def shorten(value: Json) -> str:
    """Show a value in an error without repeating an image or a novel."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def collect_later(task: Task) -> str:
    """Say how a person gets the image of a task that nobody waited for."""
    # The service chose both words, and a person will paste them into a shell.
    return f"collect it later with `fluxwerk wait {quote(task.id)} --polling-url {quote(task.polling_url)}`."


class FluxwerkError(Exception):
    """Anything that fluxwerk raises; `task` is the paid task it concerns, if any."""

    def __init__(self, message: str = "", *, task: Task | None = None) -> None:
        super().__init__(message)
        self.task = task


class InvalidUsageError(FluxwerkError):
    """The caller's mistake, found before anything was sent."""

    def __init__(self, message: str = "", *, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        lines = [message, *(f"  {fault}" for fault in self.faults)]
        super().__init__("\n".join(line for line in lines if line))

    def __reduce__(self) -> tuple[type[InvalidUsageError], tuple[str], dict[str, object]]:
        """Keep the whole message when the error crosses to another process."""
        return type(self), (str(self),), self.__dict__


class UnknownModelError(InvalidUsageError):
    """The name is in no row of the catalogue."""


class UnknownPriceError(InvalidUsageError):
    """The price of this model is not public."""


class MissingKeyError(InvalidUsageError):
    """No API key was given."""


class TransportError(FluxwerkError):
    """No answer arrived."""


class ConnectionFailedError(TransportError):
    """Nothing was sent, so it is always safe to repeat."""


class NoResponseError(TransportError):
    """The HTTP request left and no whole reply came back."""


class InDoubtError(FluxwerkError):
    """A submit left and its answer is unknown: it may have been charged, and it is not repeated."""


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
    """The service found the request wrong; `faults` names the fields."""


class RateLimitError(APIStatusError):
    """Too many tasks in flight, or the service is overloaded; try again after `retry_after` seconds."""


class TaskFailedError(FluxwerkError):
    """The task ended without an image; `details` is what the service said about it, `cost` its charge in credits."""

    def __init__(
        self, message: str = "", *, details: Json = None, task: Task | None = None, cost: Decimal | None = None
    ) -> None:
        super().__init__(message, task=task)
        self.details = details
        self.cost = cost


class ModerationError(TaskFailedError):
    """Moderation stopped the task at the `stage` "request" (what went in) or "content" (what came out)."""

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
    """The service does not know the task: a wrong id, another region's cluster, or too long ago."""


class UntrustedURLError(FluxwerkError):
    """A response named a URL that must not be followed."""


class InvalidSignatureError(FluxwerkError):
    """A webhook does not prove that the service sent it: its signature is missing or wrong."""


class InvalidWebhookError(FluxwerkError):
    """A webhook says nothing that can be read: too large, no JSON, no task or no status."""


class LinkExpiredError(FluxwerkError):
    """The delivery link died before the image was fetched, and so did a fresh one."""


class TaskTimeoutError(FluxwerkError, TimeoutError):
    """Patience ran out; what was submitted may still finish and can be collected with its `task`."""

    def __str__(self) -> str:
        """Say how to collect later what has been paid for."""
        text = super().__str__()
        return f"{text} The task goes on: {collect_later(self.task)}" if self.task else text


class ConflictError(FluxwerkError):
    """Another process has moved the job on, so this move was not written."""


class StorageError(FluxwerkError):
    """The ledger or the storage takes nothing now: its disk is full, read-only or gone."""
