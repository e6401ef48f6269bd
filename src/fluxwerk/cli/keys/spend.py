"""`fluxwerk keys spend`: what each key has spent, by model and day."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal

import click

from fluxwerk.batch.report import csv_lines
from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.keys.place import KeyPlace, place_options

COLUMNS = ("day", "name", "model", "tasks", "credits")
day_type = click.DateTime(["%Y-%m-%d"])


@click.command("spend")
@click.option("--since", metavar="DAY", type=day_type, help="First day in UTC, such as 2026-11-01.")
@click.option("--until", metavar="DAY", type=day_type, help="Last day in UTC.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
@click.option(
    "--keys", "keyring", type=click.Path(dir_okay=False, exists=True), help="File of keys whose names are to be used."
)
@json_option
@place_options
def command(since: object, until: object, keyring: str | None, place: KeyPlace, *, as_csv: bool, as_json: bool) -> None:
    """Show what was spent by day, application and model.

    A task counts on the day on which it was accepted; what it gave back is left out.  A key of a server's --keys file
    is shown as its SHA-256, and with --keys by its name in that file.
    """
    names = _names(keyring)
    with place.open() as applications:
        rows = [asdict(row) for row in applications.spend(_day(since) or "", _day(until) or "9999", names)]
    if as_json:
        for row in rows:
            put_json(row)
    elif as_csv:
        for line in csv_lines(rows, COLUMNS):
            click.echo(line, nl=False)
    else:
        for row in rows:
            click.echo(f"{row['day']}  {row['name']}  {row['model']}  {row['tasks']} tasks  {money(row['credits'])}")
        click.echo(f"in all  {money(sum((row['credits'] for row in rows), Decimal(0)))}")


def _names(keyring: str | None) -> dict[str, str]:
    from fluxwerk.server.state.keys import Keyring  # noqa: PLC0415  (the server is an extra)

    return {entry.sha256: entry.name for entry in Keyring(keyring).entries()} if keyring else {}


def _day(moment: object) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d}"
