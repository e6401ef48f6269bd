"""`fluxwerk costs`: what a ledger has cost, by day, model or tag, and whether the account agrees."""

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
@click.option("--by", type=click.Choice(["day", "model", "tag"]), default="day", show_default=True, help="What to add.")
@click.option("--csv", "as_csv", is_flag=True, help="Answer with CSV on stdout.")
@click.option("--reconcile", is_flag=True, help="Ask for the account's balance and compare.")
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
    """Add up what the jobs of a ledger have cost; what is in doubt counts as spent.

    A day is that of a job's last move, in UTC.
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
        told = f"{EPOCH + timedelta(days=label):%Y-%m-%d}" if isinstance(label, int) else label
        yield {by: told, "jobs": jobs, "credits": credit, "in_doubt": doubtful}


def _reconcile(ledger: Ledger, connection: Connection) -> dict[str, Json]:
    """Compare what the account has lost since the first run with what the ledger has booked since then."""
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
        f"Since {compared['since']} the account lost {money(compared['account'])} "
        f"and the ledger booked {money(compared['ledger'])}"
    )
    if not compared["difference"]:
        return f"{text}: they agree."
    doubt = f", {money(compared['in_doubt'])} of it in doubt" if compared["in_doubt"] else ""
    hint = "Other work on the same account, or credits that were added, would explain it."
    if -compared["in_doubt"] <= compared["difference"] < 0:
        hint = "Submits in doubt that were not charged would explain it: settle them."
    return f"{text}{doubt}: {money(abs(compared['difference']))} apart. {hint}"


def _show(rows: list[dict[str, Json]], by: str) -> None:
    width = max([len(by), len(ALL), *(len(str(row[by])) for row in rows)])
    click.echo(f"{by:{width}}  {'jobs':>8}  credits")
    total = Decimal(0)
    for row in rows:
        doubt = f", {money(row['in_doubt'])} of it in doubt" if row["in_doubt"] else ""
        click.echo(f"{row[by] or '–'!s:{width}}  {row['jobs']:>8}  {money(row['credits'])}{doubt}")
        total += row["credits"]
    click.echo(f"{ALL:{width}}  {sum(row['jobs'] for row in rows):>8}  {money(total)}")
