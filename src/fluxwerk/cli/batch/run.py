"""`fluxwerk batch run`: carry every job of a ledger to its file, and stop in good order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from fluxwerk.batch.batch import Batch, run_options
from fluxwerk.batch.saver import PROVENANCE
from fluxwerk.batch.template import DEFAULT, check_template
from fluxwerk.batch.worker import CAPPED
from fluxwerk.cli.batch.place import file_argument, ledger_of, ledger_option
from fluxwerk.cli.batch.plan import plan_into, planning_options, show
from fluxwerk.cli.batch.retry import failed_jobs
from fluxwerk.cli.batch.watch import BatchProgress, open_watch
from fluxwerk.cli.connection import Connection, connected_async, connection_options
from fluxwerk.cli.exit import CREDITS, IN_DOUBT, INTERRUPTED
from fluxwerk.cli.making import json_option
from fluxwerk.cli.number import cap
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.database import is_database
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.storage import open_storage

# What holds from one run of a ledger to the next, unless it is said again.
LASTING = ("output", "name", "provenance", "prompts")


@click.command("run")
@file_argument
@ledger_option
@planning_options
@click.option("-o", "--output", metavar="DIR|URL", help="A folder, or s3://…, gs://…, az://…; by default NAME-images.")
@click.option("--name", metavar="TEMPLATE", help=f"The files' names; by default {DEFAULT}")
@click.option("--provenance", type=click.Choice(PROVENANCE), help="How each image's origin is kept with it.")
@click.option("--no-prompts", is_flag=True, help="Keep the prompts out of the images' origins.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@click.option("--max-cost", type=cap, metavar="CREDITS", help="What all runs together may spend; none lifts the cap.")
@click.option("--max-failures", type=click.IntRange(min=0), help="Stop submitting after more failures than this.")
@click.option("--concurrency", type=click.IntRange(1, 256), help="Tasks this process carries at a time; 64 at most.")
@click.option("--retry-moderated", type=click.Choice(["yes", "no"]), default="no", show_default=True,
              help="Submit again what moderation stopped in an earlier run.")  # fmt: skip
@click.option("--webhook", metavar="URL", help="Where the service reports; each job's own token is added to it.")
@click.option("--webhook-secret", envvar="BFL_WEBHOOK_SECRET", help="What signs those reports; better in the variable.")
@click.option("--lease", type=click.FloatRange(0.05, 10), hidden=True, help="Seconds until a silent process is dead.")
@json_option
@connection_options
def command(
    file: Path | None,
    ledger: Path | None,
    connection: Connection,
    *,
    model: str,
    duplicates: str,
    assume_price: Decimal | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Carry every job of FILE, a manifest or a ledger, to its image.

    \b
    fluxwerk batch run prompts.csv --max-cost 500
    fluxwerk batch run prompts.csv --offline

    Run it again after whatever stopped it: it goes on there. Ctrl-C submits nothing more and collects what is in
    flight; a second Ctrl-C stops at once. Neither loses an image.
    """  # noqa: D301
    path = ledger_of(file, ledger)
    if file and not is_database(file) and file != path:
        show(plan_into(path, file, model, duplicates, assume_price), path, as_json=as_json)
    elif not path.is_file():
        raise InvalidUsageError(f"There is no ledger {path}; name a manifest, and it is planned first.")
    with Ledger.open(path) as opened:
        kept = _agreed(opened, path, given)
        _set_cap(opened, given["max_cost"])
        _retry_moderated(opened, given["retry_moderated"])
    sys.exit(_carry(path, connection, kept, given, as_json=as_json))


def _carry(path: Path, connection: Connection, kept: dict[str, Any], given: dict[str, Any], *, as_json: bool) -> int:
    limits = {name: given[name] for name in ("max_failures", "concurrency", "webhook", "webhook_secret", "lease")}
    wanted = run_options(**limits, offline=connection.offline)
    with open_watch(path, as_json=as_json) as watch, connected_async(connection) as client:
        batch = Batch(
            path, client=client, options=wanted, on_progress=watch.hear, overwrite=given["overwrite"],
            output=kept["output"], name=kept["name"], provenance=kept["provenance"], prompts=kept["prompts"] == "yes",
        )  # fmt: skip
        with batch:
            ended = asyncio.run(_work(batch, client, watch))
            sums = batch.sums()
            watch.finish(ended, sums)
    return _exit_code(ended, sums)


async def _work(batch: Batch, client: Any, watch: BatchProgress) -> str:
    with _signals(batch):
        refreshing = asyncio.create_task(watch.refresh())
        try:
            return await batch.work()
        finally:
            refreshing.cancel()
            await client.close()


@contextmanager
def _signals(batch: Batch) -> Generator[None]:
    """Let Ctrl-C and SIGTERM stop in good order: the first collects what is in flight, the second does not wait.

    A terminal that is closed counts as SIGTERM, unless the run was started to outlive it.
    """
    import signal  # noqa: PLC0415  (only a run needs it)

    loop = asyncio.get_running_loop()
    handled = [signal.SIGINT, signal.SIGTERM]
    closed = getattr(signal, "SIGHUP", None)
    if closed and signal.getsignal(closed) is signal.SIG_DFL:
        handled.append(closed)

    def stop(*_: object) -> None:
        loop.call_soon_threadsafe(batch.stop, "interrupted; collecting what is in flight, once more to stop at once")

    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(ledger: Ledger, path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Join what was said now with what was said in earlier runs, so that going on needs no options."""
    said = {**given, "prompts": "no" if given["no_prompts"] else None}
    usual = {"output": f"{path.stem}-images", "name": DEFAULT, "provenance": "sidecar", "prompts": "yes"}
    usual["output"] = str(path.absolute().parent / usual["output"])
    output = said["output"]
    if output and "://" not in output:
        said["output"] = str(Path(output).absolute())
    kept = {name: said[name] or ledger.setting(name) or usual[name] for name in LASTING}
    # What is refused must not be remembered, or every later run would be refused too.
    check_template(kept["name"], overwrite=given["overwrite"])
    open_storage(kept["output"])
    ledger.remember(**kept)
    return kept


def _set_cap(ledger: Ledger, wanted: Decimal | str | None) -> None:
    if wanted is None:
        return
    amount = None if isinstance(wanted, str) else wanted
    committed = ledger.budget.sums().committed
    if amount is not None and committed > amount:
        fault = Fault("--max-cost", str(amount), f"is less than the {committed} credits that are spent already")
        raise InvalidUsageError("", faults=[fault])
    ledger.budget.set_cap(amount)


def _retry_moderated(ledger: Ledger, wanted: str) -> None:
    if wanted == "yes":
        for job in failed_jobs(ledger, moderated=True, others=False):
            ledger.retry(job)


def _exit_code(ended: str, sums: Sums) -> int:
    if ended.startswith("interrupted"):
        return INTERRUPTED
    if sums.count(Stage.DOUBTFUL):
        return IN_DOUBT
    if ended == CAPPED:
        return CREDITS
    return 1 if sums.count(Stage.FAILED) else 0
