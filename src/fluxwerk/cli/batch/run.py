"""`fluxwerk batch run`: submit, wait for and save every job of a ledger, and stop in good order."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Generator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from fluxwerk.batch.batch import Batch, run_options
from fluxwerk.batch.run import EndReason, OnDoubt, RunEnd
from fluxwerk.batch.saver import PROVENANCE
from fluxwerk.batch.template import DEFAULT_TEMPLATE, check_template
from fluxwerk.cli.batch.place import file_argument, ledger_of, ledger_option
from fluxwerk.cli.batch.plan import plan_into, planning_options, show
from fluxwerk.cli.batch.retry import failed_jobs
from fluxwerk.cli.batch.watch import BatchProgress, open_watch
from fluxwerk.cli.connection import Connection, batch_connection_options, connected_async
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.exit import CREDITS, IN_DOUBT, INTERRUPTED, TIMEOUT
from fluxwerk.cli.number import cap
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.database import is_database
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.storage import open_storage

# What holds from one run of a ledger to the next, unless an option changes it.
LASTING = ("output", "name", "provenance", "prompts")
LIMITS = (
    "max_failures", "concurrency", "webhook", "webhook_secret", "lease", "drain", "exclusive", "rebuy", "witness_after"
)  # fmt: skip
INTERRUPTED_TEXT = "interrupted; collecting what is in flight (interrupt again to stop at once)"


@click.command("run")
@file_argument
@ledger_option
@planning_options
@click.option("-o", "--output", metavar="DIR|URL", help="A folder, or s3://…, gs://…, az://…; by default NAME-images.")
@click.option("--name", metavar="TEMPLATE", help=f"The files' names; by default {DEFAULT_TEMPLATE}")
@click.option("--provenance", type=click.Choice(PROVENANCE), help="Where each image's origin is kept.")
@click.option("--no-prompts", is_flag=True, help="Leave the prompts out of the images' origins.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@click.option("--max-cost", type=cap, metavar="CREDITS", help="Most that all runs may spend together; none lifts it.")
@click.option("--max-failures", type=click.IntRange(min=0), help="Stop submitting after more failures than this.")
@click.option("--concurrency", type=click.IntRange(1, 256), help="Most tasks in flight in this process; 64 by default.")
@click.option("--on-doubt", type=click.Choice([word.value for word in OnDoubt]), default="settle", show_default=True,
              help="What to do about a submit that was not answered; resubmit may pay twice.")  # fmt: skip
@click.option("--exclusive-account", "exclusive", is_flag=True,
              help="Nobody else uses or tops up the account meanwhile: its balance settles doubts.")  # fmt: skip
@click.option("--rebuy", type=click.IntRange(min=0), metavar="N",
              help="Buy at most N images anew that were charged and lost; by default none.")  # fmt: skip
@click.option("--witness-after", type=click.FloatRange(min=0), hidden=True, help="Seconds before a doubt is settled.")
@click.option("--retry-moderated", type=click.Choice(["yes", "no"]), default="no", show_default=True,
              help="Submit again what moderation stopped in an earlier run.")  # fmt: skip
@click.option("--webhook", metavar="URL", help="URL that the service calls; each job's own token is added to it.")
@click.option(
    "--webhook-secret", envvar="BFL_WEBHOOK_SECRET", help="What signs those calls; better in the environment."
)
@click.option("--drain", type=click.FloatRange(min=0), metavar="SECONDS",
              help="How long the first Ctrl-C or SIGTERM waits for what is in flight; by default 60.")  # fmt: skip
@click.option("--lease", type=click.FloatRange(0.05, 10), hidden=True, help="Seconds until a silent process is dead.")
@json_option
@batch_connection_options
def command(
    file: Path | None,
    ledger: Path | None,
    connection: Connection,
    *,
    model: str,
    duplicates: str,
    encoding: str | None,
    variables: tuple[str, ...],
    assume_price: Decimal | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Make and save the image of every job of FILE, a manifest or a ledger.

    \b
    fluxwerk batch run prompts.csv --max-cost 500
    fluxwerk batch run prompts.csv --offline

    Whatever stopped a run, start it again: it goes on from there. Before the first submit it writes a file into the
    output folder and removes it, so that no image is bought that cannot be kept. Ctrl-C submits nothing more and
    collects what is in flight, for at most --drain seconds; a second Ctrl-C stops at once. Neither loses an image.
    """  # noqa: D301
    path = ledger_of(file, ledger)
    if file and not is_database(file) and file != path:
        planned = plan_into(
            path,
            file,
            model=model,
            duplicates=duplicates,
            encoding=encoding,
            variables=variables,
            assume_price=assume_price,
        )
        show(planned, path, as_json=as_json)
    elif not path.is_file():
        raise InvalidUsageError(
            f"There is no ledger {path}. Name a manifest such as prompts.csv instead: it is planned first."
        )
    with Ledger.open(path) as opened:
        kept = _agreed(opened, path, given)
        _set_cap(opened, given["max_cost"])
        _retry_moderated(opened, given["retry_moderated"])
    sys.exit(_run(path, connection, kept, given, as_json=as_json))


def _run(path: Path, connection: Connection, kept: dict[str, Any], given: dict[str, Any], *, as_json: bool) -> int:
    limits = {name: given[name] for name in LIMITS}
    wanted = run_options(
        **limits,
        on_doubt=OnDoubt(given["on_doubt"]),
        offline=connection.offline,
        timeout=None if math.isinf(connection.timeout) else connection.timeout,
    )
    with open_watch(path, as_json=as_json) as watch, connected_async(connection) as client:
        batch = Batch(
            path, client=client, options=wanted, on_progress=watch.show, overwrite=given["overwrite"],
            output=kept["output"], name=kept["name"], provenance=kept["provenance"], prompts=kept["prompts"] == "yes",
        )  # fmt: skip
        with batch:
            end = asyncio.run(_work(batch, client, watch))
            sums = batch.sums()
            watch.finish(end, sums)
    return _exit_code(end, sums)


async def _work(batch: Batch, client: Any, watch: BatchProgress) -> RunEnd:
    with _signals(batch):
        refreshing = asyncio.create_task(watch.refresh())
        try:
            return await batch.work()
        finally:
            refreshing.cancel()
            await client.close()


@contextmanager
def _signals(batch: Batch) -> Generator[None]:
    """Stop in good order on Ctrl-C and SIGTERM: the first collects what is in flight, the second does not wait.

    A closed terminal counts as SIGTERM, unless the run was started to outlive it.
    """
    import signal  # noqa: PLC0415  (only a run needs it)

    loop = asyncio.get_running_loop()
    handled = [signal.SIGINT, signal.SIGTERM]
    closed = getattr(signal, "SIGHUP", None)
    if closed and signal.getsignal(closed) is signal.SIG_DFL:
        handled.append(closed)

    def stop(*_: object) -> None:
        loop.call_soon_threadsafe(batch.stop, INTERRUPTED_TEXT)

    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(ledger: Ledger, path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Join the options of this run with those of earlier ones, so that going on needs no options."""
    named = {**given, "prompts": "no" if given["no_prompts"] else None}
    usual = {"output": f"{path.stem}-images", "name": DEFAULT_TEMPLATE, "provenance": "sidecar", "prompts": "yes"}
    usual["output"] = str(path.absolute().parent / usual["output"])
    output = named["output"]
    if output and "://" not in output:
        named["output"] = str(Path(output).absolute())
    kept = {name: named[name] or ledger.setting(name) or usual[name] for name in LASTING}
    # What is refused must not be remembered, or every later run would be refused too.
    check_template(kept["name"], overwrite=given["overwrite"])
    storage = open_storage(kept["output"])
    if kept["output"] != ledger.setting("output"):
        storage.check()
    ledger.remember(**kept)
    return kept


def _set_cap(ledger: Ledger, wanted: Decimal | str | None) -> None:
    if wanted is None:
        return
    amount = None if isinstance(wanted, str) else wanted
    committed = ledger.budget.sums().committed
    if amount is not None and committed > amount:
        fault = Fault("--max-cost", str(amount), f"must be at least {committed}, which is spent or reserved already")
        raise InvalidUsageError("", faults=[fault])
    ledger.budget.set_cap(amount)


def _retry_moderated(ledger: Ledger, wanted: str) -> None:
    if wanted == "yes":
        for job in failed_jobs(ledger, moderated=True, others=False):
            ledger.retry(job)


def _exit_code(end: RunEnd, sums: Sums) -> int:
    if end.reason is EndReason.STOPPED:
        return INTERRUPTED
    if sums.count(Stage.DOUBTFUL):
        return IN_DOUBT
    if end.reason is EndReason.TIMED_OUT:
        return TIMEOUT
    if end.reason is EndReason.CAPPED:
        return CREDITS
    return 1 if sums.count(Stage.FAILED) else 0
