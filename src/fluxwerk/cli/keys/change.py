"""`fluxwerk keys change`: what an application may use from now on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from fluxwerk.cli.keys.place import KeyPlace, place_options
from fluxwerk.cli.keys.terms import describe, read_terms, term_options
from fluxwerk.errors import InvalidUsageError


@click.command("change")
@click.argument("name")
@term_options
@place_options
def command(name: str, place: KeyPlace, **given: Any) -> None:
    """Change what the application NAME may use; running servers see it at once."""
    terms = read_terms(given)
    if not terms:
        raise InvalidUsageError("Nothing to change: give one of --budget, --period, --slots, --models and the others.")
    with place.open() as applications:
        changed = applications.change(name, **terms)
    click.echo(f"{name}: {describe(asdict(changed))}", err=True)
