"""`fluxwerk batch retry`: try failed jobs again."""

from __future__ import annotations

from pathlib import Path

import click

from fluxwerk.cli.batch.place import ledger_option, open_ledger
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger.failure import FailureKind
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger


@click.command("retry")
@click.argument("jobs", nargs=-1, type=click.IntRange(min=1))
@click.option(
    "--all",
    "all_",
    is_flag=True,
    help="Every failed job but those that moderation stopped or that were charged and lost.",
)
@click.option("--moderated", is_flag=True, help="With --all, also those that moderation stopped.")
@ledger_option
@json_option
def command(jobs: tuple[int, ...], ledger: Path | None, *, all_: bool, moderated: bool, as_json: bool) -> None:
    """Try failed JOBS again: a task that may still have an image is asked for it, the others are submitted anew.

    `fluxwerk batch run` then submits and collects them. What was spent on them before still counts.
    """
    if not jobs and not all_:
        raise InvalidUsageError(
            "No job was named. Name the numbers of failed jobs, or use --all; `fluxwerk batch export` lists them."
        )
    with open_ledger(None, ledger) as opened:
        chosen = list(jobs) or failed_jobs(opened, moderated=moderated)
        again = [opened.retry(job) for job in chosen]
    collected = sum(job.stage is Stage.SUBMITTED for job in again)
    if as_json:
        put_json({"planned": len(again) - collected, "collected": collected})
    else:
        click.echo(f"{len(again) - collected} will be submitted again, {collected} collected without a new charge.")


def failed_jobs(ledger: Ledger, *, moderated: bool, others: bool = True) -> list[int]:
    """List the numbers of failed jobs: those that moderation stopped, the others, or both."""
    # An image that was charged and lost is bought anew only by its number or within --rebuy.
    rows = [row for row in ledger.rows(Stage.FAILED) if row["kind"] != FailureKind.IN_DOUBT]
    return [row["id"] for row in rows if (moderated if row["kind"] == FailureKind.MODERATED else others)]
