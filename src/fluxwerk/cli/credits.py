"""`fluxwerk credits`: the balance of the account."""

from __future__ import annotations

import click

from fluxwerk.cli.connection import Connection, connected, connection_options
from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option


@click.command("credits")
@json_option
@connection_options
def command(connection: Connection, *, as_json: bool) -> None:
    """Show the balance of the account in credits."""
    with connected(connection) as client:
        balance = client.credits()
    if as_json:
        put_json({"credits": balance})
    else:
        click.echo(money(balance))
