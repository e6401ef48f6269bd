"""fluxwerk runs FLUX in production: a client of the BFL FLUX image API, a command line, and a server of your own.

Names are loaded when they are first used, so that importing the package costs a millisecond and no HTTP library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxwerk.catalog.prices import estimate
    from fluxwerk.catalog.rows import Model, find, models
    from fluxwerk.client.client import AsyncClient, Client
    from fluxwerk.client.image import Image
    from fluxwerk.client.many import Made
    from fluxwerk.errors import (
        Busy,
        Error,
        Expired,
        Failed,
        Fault,
        Forged,
        Forgotten,
        Garbled,
        InDoubt,
        Invalid,
        Lost,
        Misused,
        Moderated,
        NoKey,
        NotAllowed,
        OutOfCredits,
        Refused,
        Stale,
        TimedOut,
        Unanswered,
        UnknownModel,
        UnknownPrice,
        Unreachable,
        Untrusted,
        Unwritable,
    )
    from fluxwerk.polling.history import Experience
    from fluxwerk.types import Event, Outcome, Request, Status, Task

__all__ = [
    "AsyncClient",
    "Busy",
    "Client",
    "Error",
    "Event",
    "Experience",
    "Expired",
    "Failed",
    "Fault",
    "Forged",
    "Forgotten",
    "Garbled",
    "Image",
    "InDoubt",
    "Invalid",
    "Lost",
    "Made",
    "Misused",
    "Model",
    "Moderated",
    "NoKey",
    "NotAllowed",
    "OutOfCredits",
    "Outcome",
    "Refused",
    "Request",
    "Stale",
    "Status",
    "Task",
    "TimedOut",
    "Unanswered",
    "UnknownModel",
    "UnknownPrice",
    "Unreachable",
    "Untrusted",
    "Unwritable",
    "estimate",
    "find",
    "models",
]

_HOMES = {
    "catalog.rows": ("Model", "find", "models"),
    "client.client": ("AsyncClient", "Client"),
    "types": ("Event", "Outcome", "Request", "Status", "Task"),
    "polling.history": ("Experience",),
    "client.image": ("Image",),
    "catalog.prices": ("estimate",),
    "client.many": ("Made",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'fluxwerk' has no attribute {name!r}")
    value: object = getattr(import_module(f"fluxwerk.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
