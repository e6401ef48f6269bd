"""Amounts of credits as they are typed."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import click


class Credits(click.ParamType):
    """A number of credits, exact; `none` where that is allowed lifts a limit."""

    name = "credits"

    def __init__(self, *, or_none: bool = False) -> None:
        self._or_none = or_none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read what was typed."""
        if isinstance(value, Decimal) or (self._or_none and value == "none"):
            return value
        try:
            amount = Decimal(value)
        except InvalidOperation:
            amount = Decimal(-1)
        if not amount.is_finite() or amount < 0:
            also = ", or none" if self._or_none else ""
            self.fail(f"{value!r} must be a number of credits such as 500{also}; 1 credit = $0.01", param, ctx)
        return amount


CREDITS = Credits()
CAP = Credits(or_none=True)
