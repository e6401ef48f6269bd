"""`fluxwerk costs`: the costs of a ledger by day, model or tag, compared with the account on request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import click

from fluxwerk.batch.report import csv_lines
from fluxwerk.cli.batch.place import file_argument, ledger_option, open_ledger
from fluxwerk.cli.connection import Connection, connected, connection_options
from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.types import Json

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COLUMNS = ("jobs", "credits", "in_doubt")
ALL = "in all"


@click.command("costs")
@file_argument
@ledger_option
@click.option(
    "--by", type=click.Choice(["day", "model", "tag"]), default="day", show_default=True, help="How to group the costs."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
@click.option("--reconcile", is_flag=True, help="Compare with the balance of the account.")
@json_option
@connection_options
def command(
    file: Path | None,
    ledger: Path | None,
    by: str,
    connection: Connection,
    *,
    as_csv: bool,
    reconcile: bool,
    as_json: bool,
) -> None:
    """Show what the jobs of a ledger have cost; jobs in doubt count as spent.

    With --by day a job counts on the day of its last transition, in UTC.
    """
    with open_ledger(file, ledger) as opened:
        rows = list(_rows(opened, by))
        compared = _reconcile(opened, connection) if reconcile else None
    if as_json:
        for row in rows:
            put_json(row)
        if compared:
            put_json(compared)
    elif as_csv:
        for line in csv_lines(rows, (by, *COLUMNS)):
            click.echo(line, nl=False)
    else:
        _show(rows, by)
        if compared:
            click.echo(_verdict(compared))


def _rows(ledger: Ledger, by: str) -> Iterator[dict[str, Json]]:
    for label, jobs, credit, doubtful in ledger.budget.costs(by):
        shown = f"{EPOCH + timedelta(days=label):%Y-%m-%d}" if isinstance(label, int) else label
        yield {by: shown, "jobs": jobs, "credits": credit, "in_doubt": doubtful}


def _reconcile(ledger: Ledger, connection: Connection) -> dict[str, Json]:
    """Compare the change of the balance since the first run with the costs in the ledger since then."""
    with connected(connection) as client:
        ledger.budget.note_balance(client.credits())
    readings = ledger.budget.readings()
    first, last = readings[0], readings[-1]
    lost, booked = first.balance - last.balance, last.committed - first.committed
    return {
        "since": f"{datetime.fromtimestamp(first.at, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "account": lost,
        "ledger": booked,
        "difference": lost - booked,
        "in_doubt": ledger.budget.sums().doubtful,
    }


def _verdict(compared: dict[str, Json]) -> str:
    text = (
        f"Since {compared['since']} the balance fell by {money(compared['account'])} "
        f"and the ledger recorded {money(compared['ledger'])}"
    )
    if not compared["difference"]:
        return f"{text}: they agree."
    doubt = f", {money(compared['in_doubt'])} of it in doubt" if compared["in_doubt"] else ""
    hint = "Other requests of the same account, or credits that were bought, can explain the difference."
    if -compared["in_doubt"] <= compared["difference"] < 0:
        hint = (
            "Jobs in doubt that were not charged can explain the difference; settle them with `fluxwerk batch settle`."
        )
    return f"{text}{doubt}. They differ by {money(abs(compared['difference']))}. {hint}"


def _show(rows: list[dict[str, Json]], by: str) -> None:
    width = max([len(by), len(ALL), *(len(str(row[by])) for row in rows)])
    click.echo(f"{by:{width}}  {'jobs':>8}  credits")
    total = Decimal(0)
    for row in rows:
        doubt = f", {money(row['in_doubt'])} of it in doubt" if row["in_doubt"] else ""
        click.echo(f"{row[by] or '–'!s:{width}}  {row['jobs']:>8}  {money(row['credits'])}{doubt}")
        total += row["credits"]
    click.echo(f"{ALL:{width}}  {sum(row['jobs'] for row in rows):>8}  {money(total)}")
