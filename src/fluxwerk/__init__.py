"""fluxwerk runs FLUX in production: a client of the BFL FLUX image API, a command line, and a server of your own.

Names are loaded when they are first used, so that importing the package costs a millisecond and no HTTP library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxwerk.catalog.prices import estimate
    from fluxwerk.catalog.rows import Model, get_model, list_models
    from fluxwerk.client.client import AsyncClient, Client
    from fluxwerk.client.gallery import Gallery
    from fluxwerk.client.image import Image
    from fluxwerk.client.many import Result
    from fluxwerk.errors import (
        APIStatusError,
        AuthenticationError,
        ConflictError,
        ConnectionFailedError,
        Fault,
        FluxwerkError,
        InDoubtError,
        InsufficientCreditsError,
        InvalidRequestError,
        InvalidSignatureError,
        InvalidUsageError,
        InvalidWebhookError,
        LinkExpiredError,
        MissingKeyError,
        ModerationError,
        NoResponseError,
        RateLimitError,
        StorageError,
        TaskFailedError,
        TaskNotFoundError,
        TaskTimeoutError,
        TransportError,
        UnknownModelError,
        UnknownPriceError,
        UntrustedURLError,
    )
    from fluxwerk.polling.history import PollingHistory
    from fluxwerk.types import Event, Outcome, Request, Status, Task

__all__ = [
    "APIStatusError",
    "AsyncClient",
    "AuthenticationError",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "Event",
    "Fault",
    "FluxwerkError",
    "Gallery",
    "Image",
    "InDoubtError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "InvalidSignatureError",
    "InvalidUsageError",
    "InvalidWebhookError",
    "LinkExpiredError",
    "MissingKeyError",
    "Model",
    "ModerationError",
    "NoResponseError",
    "Outcome",
    "PollingHistory",
    "RateLimitError",
    "Request",
    "Result",
    "Status",
    "StorageError",
    "Task",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskTimeoutError",
    "TransportError",
    "UnknownModelError",
    "UnknownPriceError",
    "UntrustedURLError",
    "estimate",
    "get_model",
    "list_models",
]

_HOMES = {
    "catalog.rows": ("Model", "get_model", "list_models"),
    "client.client": ("AsyncClient", "Client"),
    "types": ("Event", "Outcome", "Request", "Status", "Task"),
    "polling.history": ("PollingHistory",),
    "client.gallery": ("Gallery",),
    "client.image": ("Image",),
    "catalog.prices": ("estimate",),
    "client.many": ("Result",),
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
