"""`fluxwerk batch export`: all jobs as a table to take away."""

from __future__ import annotations

from pathlib import Path

import click

from fluxwerk.batch.report import EXPORT_COLUMNS, csv_lines, export, exported
from fluxwerk.cli.batch.place import file_argument, ledger_option, open_ledger
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option


@click.command("export")
@file_argument
@ledger_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that ends in .csv, .jsonl or .parquet; by default CSV on stdout.",
)
@click.option("--no-prompts", is_flag=True, help="Leave the prompts out.")
@json_option
def command(file: Path | None, ledger: Path | None, output: Path | None, *, no_prompts: bool, as_json: bool) -> None:
    """Write every job with its path, SHA-256, seed, cost, task and seconds."""
    with open_ledger(file, ledger) as opened:
        if output:
            count = export(opened, output, prompts=not no_prompts)
            click.echo(f"Wrote {count} jobs to {output}.", err=True)
            return
        rows = exported(opened, prompts=not no_prompts)
        if as_json:
            for row in rows:
                put_json(row)
            return
        names = [name for name in EXPORT_COLUMNS if not (no_prompts and name == "prompt")]
        for line in csv_lines(rows, names):
            click.echo(line, nl=False)
