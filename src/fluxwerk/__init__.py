"""fluxwerk runs FLUX in production: a client of the BFL FLUX image API, a command line, and a server of your own."""

from __future__ import annotations

from fluxwerk.catalog import Model, find, models
from fluxwerk.client import AsyncClient, Client
from fluxwerk.errors import (
    Busy,
    Error,
    Expired,
    Failed,
    Fault,
    Forgotten,
    InDoubt,
    Invalid,
    Lost,
    Misused,
    Moderated,
    NoKey,
    NotAllowed,
    OutOfCredits,
    Refused,
    TimedOut,
    Unanswered,
    UnknownModel,
    UnknownPrice,
    Unreachable,
    Untrusted,
)
from fluxwerk.exchange import Event, Outcome, Request, Status, Task
from fluxwerk.image import Image
from fluxwerk.pricing import estimate

__all__ = [
    "AsyncClient",
    "Busy",
    "Client",
    "Error",
    "Event",
    "Expired",
    "Failed",
    "Fault",
    "Forgotten",
    "Image",
    "InDoubt",
    "Invalid",
    "Lost",
    "Misused",
    "Model",
    "Moderated",
    "NoKey",
    "NotAllowed",
    "OutOfCredits",
    "Outcome",
    "Refused",
    "Request",
    "Status",
    "Task",
    "TimedOut",
    "Unanswered",
    "UnknownModel",
    "UnknownPrice",
    "Unreachable",
    "Untrusted",
    "estimate",
    "find",
    "models",
]
