"""What assistants may spend: in one session, and in one day over all sessions of a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.budget import DAY, committed_since
from fluxwerk.ledger.database import Transaction


@dataclass(slots=True)
class SpendingCaps:
    """Caps in credits, `None` for none: `session` for this process, `day` for a day (UTC) of the whole ledger.

    `confirm_above` is the cost above which a person is asked first.  `session_costs` holds what each job of this
    session costs, an estimate until it has ended.
    """

    session: Decimal | None = None
    day: Decimal | None = None
    confirm_above: Decimal | None = None
    session_costs: dict[int, Decimal] = field(default_factory=dict[int, Decimal])

    @property
    def spent(self) -> Decimal:
        """What this session has spent or booked."""
        return sum(self.session_costs.values(), Decimal(0))

    def check(self, transaction: Transaction, estimate: Decimal | None) -> None:
        """Refuse what would cross a cap, in the transaction that books it; raises `InvalidUsageError`."""
        if self.session is None and self.day is None:
            return
        if estimate is None:
            hint = "choose a model whose price `price` tells, or have the server started without --max-cost"
            raise InvalidUsageError("", faults=[Fault("cost", None, "is not public, so that no cap can hold", hint)])
        today = transaction.now() // DAY * DAY
        for name, cap, spent in (
            ("session", self.session, self.spent),
            ("day", self.day, committed_since(transaction, today)),
        ):
            if cap is not None and spent + estimate > cap:
                option = "--max-cost" if name == "session" else "--max-cost-day"
                allowed = f"would cross the cap of this {name}: {spent} of {cap} credits are spent"
                hint = f"choose a cheaper model or fewer images, or ask the person to raise {option}"
                raise InvalidUsageError("", faults=[Fault("cost", f"{estimate} credits", allowed, hint)])
