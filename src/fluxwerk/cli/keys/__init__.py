"""`fluxwerk keys`: the keys that your own server accepts, and what each may use."""

from __future__ import annotations

import click

from fluxwerk.cli.keys import add, change, entries, revoke, rotate, spend
from fluxwerk.cli.usage import Group


@click.group("keys", cls=Group)
def command() -> None:
    """Create, list and revoke the keys of your own server, and see what each has spent.

    \b
    fluxwerk keys add shop --budget 2000 --period month --slots 6 --state ./state
    fluxwerk serve --state ./state
    fluxwerk keys spend --state ./state
    """  # noqa: D301


for module in (add, change, entries, revoke, rotate, spend):
    command.add_command(module.command)
