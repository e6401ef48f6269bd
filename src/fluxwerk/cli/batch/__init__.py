"""`fluxwerk batch`: the commands around one ledger, each loaded when it is called."""

from __future__ import annotations

import click

from fluxwerk.cli.group import Commands

# name: (module, one line of help)
COMMANDS = {
    "plan": ("plan", "Check a manifest and write its jobs into a ledger; sends nothing."),
    "run": ("run", "Carry every job to its file; goes on where it stopped."),
    "status": ("status", "Show how far it is, and what it has cost."),
    "retry": ("retry", "Try failed jobs again."),
    "settle": ("settle", "Say what became of a job in doubt."),
    "export": ("export", "Write all jobs with their files, seeds and costs to a table."),
    "why": ("why", "OnProgress the whole story of one job."),
}


class BatchCommands(Commands):
    """The commands of the table above."""

    package = "fluxwerk.cli.batch"
    table = COMMANDS


@click.group("batch", cls=BatchCommands)
def command() -> None:
    """Make many images from a file: none lost, none bought twice, no more spent than allowed.

    \b
    fluxwerk batch plan prompts.csv
    fluxwerk batch run prompts.csv --max-cost 500
    fluxwerk batch status prompts.csv

    The jobs of prompts.csv are kept in prompts.ledger beside it, whatever happens to the process.
    """  # noqa: D301  (\b is click's, and keeps the lines as they are)
