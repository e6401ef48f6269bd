"""Amounts of credits on the command line, read as exact decimals."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import click


def credit(text: str) -> Decimal:
    """Read a number of credits; raises `click.BadParameter` with what is allowed."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"{text!r} must be a number of credits such as 500; 1 credit = $0.01.")
    return amount


def cap(text: str) -> Decimal | str:
    """Read a cap in credits, or the word `none`, which lifts it."""
    return text if text == "none" else credit(text)
