"""The headers that tell an account how many tasks it may still have in flight, and when the next slot may be free."""

from __future__ import annotations

from fluxwerk.catalog.rows import Model
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.queue import Slots
from fluxwerk.server.state.rows import NEVER
from fluxwerk.server.state.state import ServerState

LIMIT = "x-ratelimit-limit"
# Seconds after which it is worth asking again, where nobody knows better.
RETRY_AFTER = 1


def write(state: ServerState, account: Account, model: Model, slots: Slots) -> dict[str, str]:
    """Write the limits of a model's pool, of which so many slots are held."""
    now, most = state.clock(), account.slots(model)
    free = now if not slots.busy else slots.free if slots.free < NEVER else now + RETRY_AFTER
    return {
        LIMIT: str(most),
        "x-ratelimit-remaining": str(max(0, most - slots.busy - state.accounts.reading(account, model))),
        "x-ratelimit-reset": str(-int(-free // 1)),
    }
