"""`fluxwerk keys add`: an application with its first key."""

from __future__ import annotations

from typing import Any

import click

from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.keys.place import FILE, KeyPlace, place_options
from fluxwerk.cli.keys.terms import read_terms, term_options
from fluxwerk.cli.place import spelled
from fluxwerk.cli.server import credit_of
from fluxwerk.errors import Fault, InvalidUsageError

PLENTY = "1000000"


@click.command("add")
@click.argument("name")
@click.option("--credits", "credit", help="With --file: credits that the key may spend, 1000000 by default.")
@term_options
@json_option
@place_options
def command(name: str, credit: str | None, place: KeyPlace, *, as_json: bool, **given: Any) -> None:
    """Create a key called NAME and show it once.

    In a state NAME is an application, which has a budget, slots and models of its own.
    """
    terms = read_terms(given)
    if place.is_file:
        if terms:
            option = next(option for option, value in given.items() if value is not None).replace("_", "-")
            hint = "add --state DIR or --database URL"
            raise InvalidUsageError("", faults=[Fault(f"--{option}", None, "needs a state", hint)])
        key = place.keyring.add(name, credit_of("--credits", credit or PLENTY))
    else:
        if credit is not None:
            named = "--state" if place.state else spelled("database")
            wrong = f"goes with --file, not with {named}"
            raise InvalidUsageError("", faults=[Fault("--credits", credit, wrong, "use --budget")])
        key = _add(name, place, terms)
    if as_json:
        put_json({"name": name, "key": key})
        return
    click.echo(key)
    where = (place.file or FILE) if place.is_file else "the state"
    click.echo(f"The key is not shown again: {where} holds only its SHA-256.", err=True)


def _add(name: str, place: KeyPlace, terms: dict[str, Any]) -> str:
    from fluxwerk.server.state import keys  # noqa: PLC0415  (the server is an extra)
    from fluxwerk.server.state.application import Application  # noqa: PLC0415

    key = keys.make()
    with place.open() as applications:
        applications.add(Application(name, **terms), keys.describe(key))
    return key
