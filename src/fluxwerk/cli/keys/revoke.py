"""`fluxwerk keys revoke`: an application or a key that opens nothing any more."""

from __future__ import annotations

import click

from fluxwerk.cli.keys.place import KeyPlace, place_options


@click.command("revoke")
@click.argument("name")
@place_options
def command(name: str, place: KeyPlace) -> None:
    """Revoke the keys of NAME; running servers refuse them too.

    In a file NAME may be the last four characters of the key.
    """
    if place.is_file:
        entry = place.keyring.revoke(name)
        click.echo(f"{entry.name} ({entry.shown}) is revoked.", err=True)
        return
    with place.open() as applications:
        applications.revoke(name)
    click.echo(f"{name} is revoked.", err=True)
