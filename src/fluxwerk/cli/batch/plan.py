"""`fluxwerk batch plan`: from a manifest to a ledger, with every fault and the price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import click

from fluxwerk.batch.advice import advice_on
from fluxwerk.batch.planner import DUPLICATES, Plan, plan
from fluxwerk.cli.batch.place import ledger_of, ledger_option
from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.lint import lines_of
from fluxwerk.cli.number import credit
from fluxwerk.client.base import DEFAULT_MODEL
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.storage import give_name

MOST_ADVICE = 100
Command = TypeVar("Command", bound=Callable[..., Any])

_PLANNING = (
    click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, help="For rows that name none."),
    click.option(
        "--duplicates",
        type=click.Choice(DUPLICATES),
        default="refuse",
        show_default=True,
        help="What to do with rows that ask for the same as an earlier one.",
    ),
    click.option("--encoding", help="Of a text manifest, such as cp1252; UTF-8 by default."),
    click.option(
        "--vars",
        "variables",
        multiple=True,
        metavar="FILE|NAME=A,B",
        help="Values for {{names}} in the manifest: a table, or one name; several are combined.",
    ),
    click.option("--assume-price", type=credit, metavar="CREDITS", help="For models whose price is not public."),
)


def planning_options(command: Command) -> Command:
    """Add the options of everything that plans."""
    for option in reversed(_PLANNING):
        command = option(command)
    return command


@click.command("plan")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@planning_options
@click.option("--lint", "linted", is_flag=True, help="Also give advice on the prompts, by line.")
@ledger_option
@json_option
def command(
    manifest: Path,
    ledger: Path | None,
    *,
    model: str,
    duplicates: str,
    encoding: str | None,
    variables: tuple[str, ...],
    assume_price: Decimal | None,
    linted: bool,
    as_json: bool,
) -> None:
    """Check a MANIFEST (.csv, .tsv, .jsonl, .parquet, or .txt with a prompt a line) and plan its jobs.

    A row may hold prompt, model, width and height or size, seed, images (reference files, with ; between them), count,
    output (a file name), tag, and every other option of its model. Nothing is sent and nothing costs.
    """
    path = ledger_of(manifest, ledger)
    reading = {"model": model, "encoding": encoding, "variables": variables}
    found = plan_into(path, manifest, duplicates=duplicates, assume_price=assume_price, **reading)
    if linted:
        _show_advice(manifest, reading)
    show(found, path, as_json=as_json)


def plan_into(path: Path, manifest: Path, **options: Any) -> Plan:
    """Plan a manifest into its ledger, or into a new one, of which nothing is left if the manifest has a fault.

    `options` are those of `fluxwerk.batch.plan`.
    """
    if not path.exists():
        # Of several processes one gives its ledger the name; the others go on with that one.
        with suppress(FileExistsError):
            return _plan_new(path, manifest, options)
    with Ledger.open(path) as ledger:
        return plan(ledger, manifest, **options)


def _plan_new(path: Path, manifest: Path, options: dict[str, Any]) -> Plan:
    """Make the ledger under another name: one that others may have begun to work on is never taken away again."""
    part = path.with_name(f".{path.name}.{token_hex(8)}.part")
    try:
        with Ledger.open(part) as ledger:
            found = plan(ledger, manifest, **options)
        give_name(part, path)
        return found
    finally:
        for file in (part, Path(f"{part}-wal"), Path(f"{part}-shm")):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def show(found: Plan, path: Path, *, as_json: bool) -> None:
    """Say what was planned and what it should cost."""
    if as_json:
        put_json(_facts(found, path))
        return
    if found.already:
        click.echo(f"{found.name} is planned in {path} already; nothing was added.")
        return
    for bill in found.bills:
        open_ = f", {bill.unpriced} of them without a public price" if bill.unpriced else ""
        click.echo(f"{bill.jobs} × {bill.model}: about {money(bill.credits)}{open_}")
    what = "skipped" if found.skipped else "kept"
    if found.duplicates:
        named = ", ".join(f"line {line} ({other})" for line, other in found.duplicates)
        more = " …" if found.skipped + found.kept > len(found.duplicates) else ""
        click.echo(f"{found.skipped + found.kept} duplicates were {what}: {named}{more}")
    jobs = "1 job" if found.jobs == 1 else f"{found.jobs} jobs"
    click.echo(f"Planned {jobs} in {path}, about {money(found.total)} in all. Nothing was sent.")


def _show_advice(manifest: Path, reading: dict[str, Any]) -> None:
    """Print the advice on stderr, the first pieces in full and all of them by rule."""
    rules: Counter[str] = Counter()
    for number, prompt, advice in advice_on(manifest, **reading):
        rules[advice.rule] += 1
        if rules.total() <= MOST_ADVICE:
            click.echo("\n".join(lines_of(prompt, advice, f"line {number}")), err=True)
    if rules.total() > MOST_ADVICE:
        click.echo(f"… and {rules.total() - MOST_ADVICE} more.", err=True)
    counted = ", ".join(f"{rule} {count}" for rule, count in rules.most_common())
    click.echo(f"Advice: {counted or 'none'}. The prompts are planned as they are.", err=True)


def _facts(found: Plan, path: Path) -> dict[str, Any]:
    return {
        "ledger": str(path),
        "jobs": found.jobs,
        "lines": found.lines,
        "already": found.already,
        "estimated_cost": found.total,
        "skipped": found.skipped,
        "kept": found.kept,
        "duplicates": [{"line": line, "repeats": other} for line, other in found.duplicates],
        "models": [
            {"model": bill.model, "jobs": bill.jobs, "estimated_cost": bill.credits, "unpriced": bill.unpriced}
            for bill in found.bills
        ],
    }
