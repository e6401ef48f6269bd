"""`fluxwerk batch why`: the history of one job."""

from __future__ import annotations

from pathlib import Path

import click

from fluxwerk.batch.report import export_row, why
from fluxwerk.cli.batch.place import ledger_option, open_ledger
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.ledger.job import to_credits


@click.command("why")
@click.argument("job", type=click.IntRange(min=1))
@ledger_option
@json_option
def command(job: int, ledger: Path | None, *, as_json: bool) -> None:
    """Show everything that happened to a JOB, and what can be done."""
    with open_ledger(None, ledger) as opened:
        if as_json:
            transitions = [
                {name: step[name] for name in ("at", "before", "after", "note")} for step in opened.transitions(job)
            ]
            names = ("at", "since", "verdict", "text")
            evidence = [
                {**{name: said[name] for name in names}, "difference": to_credits(said["difference"])}
                for said in opened.doubts.evidence(job)
            ]
            facts = export_row(opened, opened.row(job))
            put_json({**facts, "transitions": transitions, "evidence": evidence})
        else:
            click.echo(why(opened, job))
