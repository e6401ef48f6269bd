"""How an order ends when the service made no image of it: one ending for each of the service's own."""

from __future__ import annotations

from typing import cast

from fluxwerk.engines import OrderEndedError
from fluxwerk.errors import (
    APIStatusError,
    AuthenticationError,
    FluxwerkError,
    InsufficientCreditsError,
    InvalidRequestError,
    ModerationError,
    TaskFailedError,
    TaskNotFoundError,
    UntrustedURLError,
)
from fluxwerk.protocol import trust
from fluxwerk.types import Json

NO_ACCOUNT = "The service refuses the account of this gateway; its operator has to renew the key. Nothing was charged."
NO_CREDITS = "The account of this gateway has too few credits; its operator has to add some. Nothing was charged."
LOST = "The service made no image in time, or did not deliver it. The task may have been charged."
IN_DOUBT = (
    "The submit to the service was not answered and may have been charged, so it was not repeated. Its cost stays "
    "booked until the operator of this gateway settles it."
)


def refused(error: FluxwerkError) -> OrderEndedError:
    """End an order whose submit the service refused: nothing was charged."""
    code, message = "internal_error", trust.quote(str(error))
    if isinstance(error, AuthenticationError):
        code, message = "upstream_refused", NO_ACCOUNT
    elif isinstance(error, InsufficientCreditsError):
        code, message = "insufficient_credits", NO_CREDITS
    elif isinstance(error, InvalidRequestError):
        code = "invalid_request"
    return OrderEndedError("Error", _details(code, message), paid=False)


def in_doubt() -> OrderEndedError:
    """End an order whose submit was not answered; it may have been charged."""
    return OrderEndedError("Error", _details("in_doubt", IN_DOUBT), paid=True)


def unreachable(reason: str) -> OrderEndedError:
    """End an order that never left."""
    message = f"The service could not take the task in time ({reason.rstrip('.')}). Nothing was charged."
    return OrderEndedError("Error", _details("upstream_unavailable", message), paid=False)


def failed(error: TaskFailedError) -> OrderEndedError:
    """End an order as the service ended its task; it costs what the service says."""
    if isinstance(error, ModerationError):
        return OrderEndedError(f"{error.stage.capitalize()} Moderated", _kept(error.details), paid=True)
    if isinstance(error, TaskNotFoundError):
        return OrderEndedError("Error", _details("upstream_lost", LOST), paid=True)
    return OrderEndedError("Error", _kept(error.details), paid=True)


def given_up(error: APIStatusError | UntrustedURLError | FluxwerkError) -> OrderEndedError:
    """End an order whose task was paid and brought no image for another reason."""
    message = f"{LOST} ({trust.quote(str(error)).rstrip('.')}.)"
    return OrderEndedError("Error", _details("upstream_lost", message), paid=True)


def _details(code: str, message: str) -> dict[str, Json]:
    return {"error": code, "message": message}


def _kept(details: Json) -> Json:
    """Keep the service's details as they came; a bare text becomes a message."""
    if details is None or isinstance(details, dict):
        return cast("Json", details)
    return _details("internal_error", trust.quote(str(details)))
