"""`fluxwerk keys`: the keys that your own server accepts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.serve import PACKAGES, credit_of
from fluxwerk.cli.usage import Group
from fluxwerk.errors import InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.server.state.keys import Keyring

file_option = click.option(
    "--file", default="keys.json", show_default=True, type=click.Path(dir_okay=False), help="File of the keys."
)


@click.group("keys", cls=Group)
def command() -> None:
    """Create, list and revoke the keys of your own server.

    \b
    fluxwerk keys add shop --credits 500
    fluxwerk serve --keys keys.json
    """  # noqa: D301


@command.command("add")
@click.argument("name")
@click.option("--credits", "credit", default="1000000", show_default=True, help="Credits that the key may spend.")
@json_option
@file_option
def add(name: str, credit: str, file: str, *, as_json: bool) -> None:
    """Create a key called NAME and show it once."""
    key = _keyring(file).add(name, credit_of("--credits", credit))
    if as_json:
        put_json({"name": name, "key": key})
        return
    click.echo(key)
    click.echo(f"The key is not shown again: {file} holds only its SHA-256.", err=True)


@command.command("list")
@json_option
@file_option
def show(file: str, *, as_json: bool) -> None:
    """List the keys; only their last characters are shown."""
    for entry in _keyring(file).entries():
        if as_json:
            row = asdict(entry)
            del row["sha256"]
            put_json(row)
        else:
            state = f"revoked {entry.revoked}" if entry.revoked else f"{entry.credits} credits"
            click.echo(f"{entry.name}  {entry.shown}  created {entry.created}  {state}")


@command.command("revoke")
@click.argument("name")
@file_option
def revoke(name: str, file: str) -> None:
    """Revoke a key by its NAME or its last four characters; running servers refuse it too."""
    entry = _keyring(file).revoke(name)
    click.echo(f"{entry.name} ({entry.shown}) is revoked.", err=True)


def _keyring(file: str) -> Keyring:
    try:
        from fluxwerk.server.state.keys import Keyring  # noqa: PLC0415  (the server is an extra)
    except ModuleNotFoundError as missing:
        raise InvalidUsageError(f"`fluxwerk keys` needs the package {missing.name}. Install it: {PACKAGES}") from None
    return Keyring(file)
