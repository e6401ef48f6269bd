"""The options that say what an application may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

import click

from fluxwerk import catalog
from fluxwerk.cli.server import credit_of
from fluxwerk.errors import Fault, InvalidUsageError

C = TypeVar("C", bound=Callable[..., Any])
MEGABYTE = 1024 * 1024
ALL = "all"
PERIODS = ("day", "week", "month", "total")

TERMS = (
    click.option("--budget", metavar="CREDITS", help="Credits that it may spend in each period."),
    click.option(
        "--period", type=click.Choice(PERIODS), help="How long the budget has to last; days are those of UTC."
    ),
    click.option("--slots", type=click.IntRange(min=1), help="Tasks that it may have in flight in each pool."),
    click.option("--models", metavar="NAME,...", help=f"Models that it may use, or {ALL}."),
    click.option(
        "--priority", type=click.IntRange(1, 10), help="Its share of the workers beside others, from 1 to 10."
    ),
    click.option("--rate", type=click.IntRange(min=1), help="Submits that it may make a minute."),
    click.option("--max-body", type=click.IntRange(min=1), metavar="MB", help="Largest body of a submit."),
    click.option("--keep", type=click.FloatRange(min=1), metavar="SECONDS", help="Time to keep its images."),
)


def term_options(function: C) -> C:
    """Add the options; those that are not given are `None`."""
    for option in reversed(TERMS):
        function = option(function)
    return function


def read_terms(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an application that were given; raises `InvalidUsageError`."""
    terms: dict[str, Any] = {name: given[name] for name in ("period", "slots", "priority", "rate", "keep")}
    if given["budget"] is not None:
        terms["budget"] = credit_of("--budget", given["budget"])
    if given["max_body"] is not None:
        terms["largest_body"] = given["max_body"] * MEGABYTE
    terms = {name: value for name, value in terms.items() if value is not None}
    if given["models"] is not None:
        terms["models"] = None if given["models"] == ALL else _models(given["models"])
    return terms


def describe(fields: Mapping[str, Any]) -> str:
    """Write what an application may use in words."""
    budget: Decimal = fields["budget"]
    period = "" if fields["period"] == "total" else f" a {fields['period']}"
    words = [f"{budget.normalize():f} credits{period}"]
    if fields["slots"]:
        words.append(f"{fields['slots']} slots")
    if fields["models"]:
        words.append(", ".join(sorted(fields["models"])))
    if fields["priority"] != 1:
        words.append(f"priority {fields['priority']}")
    if fields["rate"]:
        words.append(f"{fields['rate']} submits a minute")
    if fields["largest_body"]:
        words.append(f"bodies of {fields['largest_body'] // MEGABYTE} MB")
    if fields["keep"]:
        words.append(f"images for {fields['keep']:g} s")
    return "; ".join(words)


def _models(text: str) -> frozenset[str]:
    names = frozenset(catalog.get_model(name).name for name in text.split(",") if name.strip())
    if not names:
        raise InvalidUsageError("", faults=[Fault("--models", text, "must name a model", f"or {ALL} for every model")])
    return names
