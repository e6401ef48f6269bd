"""`fluxwerk batch`: the commands around one ledger, each loaded when it is called."""

from __future__ import annotations

import click

from fluxwerk.cli.group import Commands

# name: (module, one line of help)
COMMANDS = {
    "plan": ("plan", "Check a manifest and write its jobs into a ledger; sends nothing."),
    "run": ("run", "Make and save every image; goes on where it stopped."),
    "status": ("status", "Show the jobs of each stage and what they cost."),
    "retry": ("retry", "Try failed jobs again."),
    "settle": ("settle", "Settle a job in doubt: charged, not charged, or this task."),
    "export": ("export", "Write all jobs with their files, seeds and costs to a table."),
    "sheet": ("sheet", "Write a page of all images, with prompts, seeds, costs and failures."),
    "why": ("why", "Tell the whole story of one job."),
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
