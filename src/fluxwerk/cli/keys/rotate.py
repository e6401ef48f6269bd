"""`fluxwerk keys rotate`: a new key for an application, beside the old one for a while."""

from __future__ import annotations

import click

from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.keys.place import KeyPlace, place_options

HOURS = 3600.0


@click.command("rotate")
@click.argument("name")
@click.option(
    "--overlap",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="How long the old key stays valid.",
)
@json_option
@place_options
def command(name: str, overlap: float, place: KeyPlace, *, as_json: bool) -> None:
    """Give the application NAME a new key and show it once; the old one ends after the overlap."""
    from fluxwerk.server.state import keys  # noqa: PLC0415  (the server is an extra)

    key = keys.make()
    with place.open() as applications:
        applications.rotate(name, keys.describe(key), overlap * HOURS)
    if as_json:
        put_json({"name": name, "key": key})
        return
    click.echo(key)
    click.echo(f"The key before it ends in {overlap:g} hours.", err=True)
