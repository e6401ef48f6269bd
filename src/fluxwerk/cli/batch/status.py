"""`fluxwerk batch status`: how far a ledger is, once or live."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fluxwerk.batch.report import Rate, facts_of, rate
from fluxwerk.cli.batch.place import file_argument, ledger_option, open_ledger
from fluxwerk.cli.batch.table import summary_lines, table
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger

REFRESH_SECONDS = 1.0
MOST_DOUBTS = 20


@click.command("status")
@file_argument
@ledger_option
@click.option("--watch", is_flag=True, help="Stay and show a live table, until Ctrl-C.")
@json_option
def command(file: Path | None, ledger: Path | None, *, watch: bool, as_json: bool) -> None:
    """Show the jobs of each stage, the money, and what is in doubt."""
    with open_ledger(file, ledger) as opened:
        sums, speed = _look(opened)
        if as_json:
            put_json(facts_of(sums, speed))
        elif watch:
            _stay(opened)
        else:
            click.echo("\n".join(summary_lines(sums, speed)))
            _list_doubts(opened)


def _look(ledger: Ledger) -> tuple[Sums, Rate]:
    sums = ledger.budget.sums()
    return sums, rate(ledger, sums)


def _stay(ledger: Ledger) -> None:
    from rich.live import Live  # noqa: PLC0415  (only a live table pays for it)

    try:
        with Live(table(*_look(ledger)), auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH_SECONDS)
                live.update(table(*_look(ledger)), refresh=True)
    except KeyboardInterrupt:
        return


def _list_doubts(ledger: Ledger) -> None:
    for number, row in enumerate(ledger.rows(Stage.DOUBTFUL)):
        if number == MOST_DOUBTS:
            click.echo("… `fluxwerk batch export` lists them all.")
            return
        click.echo(f"in doubt: job {row['id']} (line {row['line']}): {row['reason']}; fluxwerk batch why {row['id']}")
