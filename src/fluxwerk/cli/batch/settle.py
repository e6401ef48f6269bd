"""`fluxwerk batch settle`: what a person found out about a job in doubt."""

from __future__ import annotations

from pathlib import Path

import click

from fluxwerk.cli.batch.place import ledger_option, open_ledger
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.errors import InvalidUsageError


@click.command("settle")
@click.argument("job", type=click.IntRange(min=1))
@click.option("--charged", is_flag=True, help="It was charged, and its image is lost.")
@click.option("--resubmit", is_flag=True, help="It was not charged: submit it again.")
@click.option("--collect", metavar="TASK", help="This is its task: fetch the image.")
@ledger_option
@json_option
def command(
    job: int, ledger: Path | None, collect: str | None, *, charged: bool, resubmit: bool, as_json: bool
) -> None:
    """Settle a JOB in doubt: its submit left and was never answered, so it may have been charged.

    Look at your account's usage first; `fluxwerk batch why JOB` shows when it happened.
    """
    if charged + resubmit + (collect is not None) != 1:
        raise InvalidUsageError("Exactly one of --charged, --resubmit and --collect TASK is needed.")
    with open_ledger(None, ledger) as opened:
        if collect is not None:
            settled = opened.settle_collect(job, collect)
        else:
            settled = opened.settle_charged(job) if charged else opened.settle_resubmit(job)
    if as_json:
        put_json({"job": job, "stage": settled.stage, "cost": settled.cost})
    else:
        click.echo(f"Job {job} is {settled.stage} now.")
