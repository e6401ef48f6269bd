"""Who pays for a task, as it stood when it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from fluxwerk.catalog.rows import Model
from fluxwerk.server.state.application import Application, Period
from fluxwerk.server.state.rows import NEVER

NOTHING = Decimal(0)
# How far a task moves an account of priority 1; shares of most priorities are whole numbers then.
WHOLE_TURN = 60


class Standing(NamedTuple):
    """How an account stood in one pool when it was read.

    `busy` of its tasks hold slots, of which the first is `free` at a moment, `waiting` of them wait for one, and its
    submits have used up its rate until `reached`.
    """

    pool: str
    busy: int = 0
    waiting: int = 0
    reached: float = 0.0
    free: float = NEVER


# Of an account that was read without a pool.
UNREAD = Standing("")


@dataclass(frozen=True, slots=True)
class Account:
    """An account: `granted` credits for the present period, less those `spent` in it.

    `id` is the application's, or the SHA-256 of a key that belongs to none; the key itself is never kept.  `name` is
    that of a key in a file, and `standing` that in the pool of the model that was asked for.
    """

    id: str = field(repr=False)
    granted: Decimal
    spent: Decimal = NOTHING
    application: Application | None = None
    name: str | None = None
    standing: Standing = UNREAD

    @property
    def credits(self) -> Decimal:
        """What is left."""
        return self.granted - self.spent

    @property
    def shown(self) -> str:
        """How the log names it: the name of the application or key, or the first digits of the key's SHA-256."""
        name = self.application.name if self.application else self.name
        return name or f"sha256:{self.id[:8]}"

    @property
    def period(self) -> Period:
        """How long what is granted has to last."""
        return self.application.period if self.application else "total"

    @property
    def rate(self) -> int | None:
        """How many submits a minute it may make."""
        return self.application.rate if self.application else None

    @property
    def keep(self) -> float | None:
        """How many seconds its images are kept, if not as long as all others."""
        return self.application.keep if self.application else None

    @property
    def share(self) -> int:
        """How far one of its tasks moves it back in the order of all accounts."""
        return round(WHOLE_TURN / (self.application.priority if self.application else 1))

    def slots(self, model: Model) -> int:
        """How many tasks of the model's pool it may have in flight."""
        own = self.application.slots if self.application else None
        return model.slots if own is None else own

    def may_use(self, model: Model) -> bool:
        """Whether it may submit to a model."""
        return self.application is None or self.application.may_use(model.name)
