"""`fluxwerk batch settle`: what a person found out about jobs in doubt, one by one, guided, or all at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from fluxwerk.batch.report import doubt_lines
from fluxwerk.cli.batch.place import ledger_option, open_ledger
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.errors import FluxwerkError, InvalidUsageError
from fluxwerk.ledger.database import Row
from fluxwerk.ledger.job import Job, Stage
from fluxwerk.ledger.ledger import Ledger

CHARGED, NOT_CHARGED = "charged", "not-charged"
QUESTION = "  [c]harged, [n]ot charged, [t]ask id, [s]kip or [q]uit"


@click.command("settle")
@click.argument("job", type=click.IntRange(min=1), required=False)
@click.option("--charged", is_flag=True, help="It was charged, and its image is lost.")
@click.option("--resubmit", is_flag=True, help="It was not charged: submit it again.")
@click.option("--collect", metavar="TASK", help="This is its task: fetch the image.")
@click.option("--all", "every", type=click.Choice([CHARGED, NOT_CHARGED]), help="Settle all jobs in doubt alike.")
@click.option("--model", help="Without JOB: only jobs of this model.")
@click.option("--tag", help="Without JOB: only jobs with this tag.")
@ledger_option
@json_option
def command(
    job: int | None,
    ledger: Path | None,
    collect: str | None,
    every: str | None,
    model: str | None,
    tag: str | None,
    *,
    charged: bool,
    resubmit: bool,
    as_json: bool,
) -> None:
    """Settle a JOB in doubt: its submit left and was never answered, so it may have been charged.

    Look at your account's usage first; `fluxwerk batch why JOB` shows when it happened, and what a balance said.
    Without JOB each one is shown and asked about; --all settles them alike, and --model and --tag choose some.
    """
    answers = charged + resubmit + (collect is not None)
    if job is None and answers:
        raise InvalidUsageError("--charged, --resubmit and --collect need a JOB; for all of them use --all.")
    if job is not None and (answers != 1 or every or model or tag):
        raise InvalidUsageError("Exactly one of --charged, --resubmit and --collect TASK is needed.")
    with open_ledger(None, ledger) as opened:
        if job is not None:
            settled = [_settle(opened, job, charged=charged, task=collect)]
        elif every:
            chosen = [row["id"] for row in _doubts(opened, model, tag)]
            settled = [_settle(opened, number, charged=every == CHARGED) for number in chosen]
        elif as_json or not sys.stdin.isatty():
            raise InvalidUsageError("Name a JOB, or --all charged|not-charged; the questions need a terminal.")
        else:
            settled = list(_walk(opened, list(_doubts(opened, model, tag))))
    _show(settled, job, as_json=as_json)


def _settle(ledger: Ledger, job: int, *, charged: bool, task: str | None = None) -> Job:
    if task is not None:
        return ledger.settle_collect(job, task)
    return ledger.settle_charged(job) if charged else ledger.settle_resubmit(job)


def _doubts(ledger: Ledger, model: str | None, tag: str | None) -> Iterator[Row]:
    for row in ledger.rows(Stage.DOUBTFUL):
        if model in (None, row["model"]) and tag in (None, row["tag"]):
            yield row


def _walk(ledger: Ledger, rows: list[Row]) -> Iterator[Job]:
    """Show one job in doubt after the other, and ask what became of it."""
    for number, row in enumerate(rows, 1):
        click.echo(f"{number} of {len(rows)}")
        click.echo("\n".join(doubt_lines(ledger, row)))
        answer = click.prompt(QUESTION, type=click.Choice(["c", "n", "t", "s", "q"]), show_choices=False)
        if answer == "q":
            return
        if answer == "s":
            continue
        task = click.prompt("  Its task id") if answer == "t" else None
        try:
            yield _settle(ledger, row["id"], charged=answer == "c", task=task)
        except FluxwerkError as refusal:
            click.echo(f"  {refusal}")


def _show(settled: list[Job], job: int | None, *, as_json: bool) -> None:
    if as_json and job is not None:
        put_json({"job": job, "stage": settled[0].stage, "cost": settled[0].cost})
    elif as_json:
        put_json({"settled": [{"job": one.id, "stage": one.stage, "cost": one.cost} for one in settled]})
    else:
        for one in settled:
            click.echo(f"Job {one.id} is {one.stage} now.")
        if not settled:
            click.echo("No job was settled.")
