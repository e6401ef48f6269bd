"""The values of the house: what is asked of the network and what comes back.

Nothing here can open a socket, and none of these values knows a client.
A key never rides in them: an HTTP request only says that it wants one (`keyed`), and the send seam adds it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
Json: TypeAlias = Any


class Pool(NamedTuple):
    """Which tasks share slots, and how many of them an account may have in flight."""

    name: str
    slots: int


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What leaves for a host: method, absolute URL and a JSON body.

    `keyed` asks the send seam for the account's key, `pool` for a slot: only a submit asks for one.
    """

    method: str
    url: str = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    keyed: bool = False
    pool: Pool | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """What a host answered; header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request and the earliest moment for it: `after` seconds from now.

    `jitter` is the share of `after` by which the driver may lengthen it, so that many clients do not knock at once.
    `early` says that the service did not ask for the pause: it may be shortened for a last call before the deadline.
    """

    request: HttpRequest
    after: float = 0.0
    jitter: float = 0.0
    early: bool = False


Flow: TypeAlias = Generator[Call, Response, T]


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted: a model of the catalogue, a prompt and options, with images already turned into text.

    `sizes` holds (width, height) in pixels of each image that could be measured, `None` for one known only by URL.
    """

    model: str
    fields: Mapping[str, Json] = field(repr=False)
    sizes: tuple[tuple[int, int] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """What the service hands back for a request: store it, mail it, wait for it in another process.

    `cost` is in credits, `input_mp` and `output_mp` in megapixels, each as the service said it, `None` if it did not.
    """

    id: str
    polling_url: str
    model: str = ""
    cost: Decimal | None = None
    input_mp: Decimal | None = None
    output_mp: Decimal | None = None


class Outcome(Enum):
    """What a status word means for the caller that waits."""

    RUNNING = "running"
    READY = "ready"
    MODERATED = "moderated"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Status:
    """What a poll says.

    `url` is a credential for ten minutes and stays out of the repr; `cost` is the settled cost in credits;
    `seconds` is how long the service says that it worked; `engine` is named only by a fluxwerk server.
    """

    task: Task
    word: str
    outcome: Outcome
    url: str | None = field(default=None, repr=False)
    seed: int | None = None
    prompt: str | None = field(default=None, repr=False)
    cost: Decimal | None = None
    progress: float | None = None
    details: Json = None
    engine: str | None = None
    seconds: float | None = None


def is_flux(engine: str | None) -> bool | None:
    """Whether FLUX made an image, by the engine that a fluxwerk server names; `None` where the server does not know."""
    return None if engine == "unknown" else engine not in ("offline", "blank")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened on the way to an image, for progress bars, logs and traces.

    `kind` is one of submitted, polled, retrying, ready, downloaded and failed; `attempt` counts the tries of a step,
    `seconds` from the start of the conversation.  `status` says what a poll said, with the cost once it is settled.
    """

    kind: str
    task: Task | None = None
    attempt: int = 0
    status: Status | None = None
    reason: str = ""
    seconds: float = 0.0


OnEvent: TypeAlias = Callable[[Event], None]


def ignore_event(_: Event) -> None:
    """Listen to no events."""
