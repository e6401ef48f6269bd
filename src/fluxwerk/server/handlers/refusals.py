"""Why an account may not submit now, or not this: each refusal says what would change it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from fluxwerk.catalog.rows import Model
from fluxwerk.server.bodies import too_large
from fluxwerk.server.errors import ServerError
from fluxwerk.server.state import charges
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.application import renewal, retry_after
from fluxwerk.server.state.state import ServerState


def check_open(state: ServerState) -> None:
    """Refuse everybody once the server closes."""
    if state.is_closing:
        raise ServerError("closing", "The server is closing down and accepts nothing more.", retry_after=1)


def check_model(account: Account, model: Model) -> None:
    """Refuse a model that the operator did not give to the application."""
    if account.may_use(model):
        return
    own = account.application.models if account.application else None
    names = ", ".join(sorted(own or ()))
    raise ServerError("forbidden", f"This key may not use {model.name}; it may use {names}. Ask the operator for more.")


def check_slot(state: ServerState, account: Account, model: Model) -> None:
    """Refuse a submit for which neither a slot nor a place in the queue is left."""
    if not state.accounts.has_slot(account, model, state.clock()):
        raise busy(state, account, model)


def check_rate(state: ServerState, account: Account) -> None:
    """Refuse a submit that comes too early, before its images are fetched."""
    wait = charges.wait(account, state.clock())
    if wait:
        raise too_often(account, wait)


def check_credits(state: ServerState, account: Account, cost: Decimal | None) -> None:
    """Refuse a task that costs more than is left."""
    if cost is not None and account.credits < cost:
        raise no_credits(state, account, cost, account.credits)


def check_size(account: Account, body: bytes) -> None:
    """Refuse a body that is longer than the operator lets the application send."""
    most = account.application.largest_body if account.application else None
    if most is not None and len(body) > most:
        raise too_large(most)


def busy(state: ServerState, account: Account, model: Model) -> ServerError:
    """Say how many tasks may be in flight, and when the next place may be free by the pace of the latest endings."""
    queue = state.tasks.queue
    pause = queue.pause(account.id, model.pool, state.clock())
    waiting = f", and {queue.longest} more may wait" if queue.longest else ""
    text = f"Too many active tasks: at most {account.slots(model)} of {model.pool} at a time{waiting}"
    return ServerError("busy", text, retry_after=retry_after(pause or 0.0))


def no_credits(state: ServerState, account: Account, cost: Decimal | None, left: Decimal) -> ServerError:
    """Say what is left, and when there will be more."""
    text = f"Insufficient credits: this costs {_plain(cost or Decimal(0))}, {_plain(left)} are left"
    renewed = renewal(account.period, state.clock())
    if renewed is not None:
        day = datetime.fromtimestamp(renewed, UTC).date()
        text = (
            f"{text} of {_plain(account.granted)} a {account.period}; the next {account.period} begins on {day} in UTC"
        )
    return ServerError("no_credits", text)


def too_often(account: Account, wait: float) -> ServerError:
    """Say how often the account may submit."""
    text = f"Too many submits: at most {account.rate} a minute"
    return ServerError("busy", text, retry_after=retry_after(wait))


def _plain(credit: Decimal) -> str:
    return f"{credit.normalize():f}"
