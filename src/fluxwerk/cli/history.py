"""`fluxwerk history`: the images of the ledgers in a folder, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import nlargest
from pathlib import Path

import click

from fluxwerk.batch.report import export_row
from fluxwerk.cli.batch.place import LEDGER_SUFFIX
from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.types import Json

LONGEST_PROMPT_SHOWN = 60


@click.command("history")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most images.")
@click.option("--find", metavar="TEXT", help="Only images whose prompt, model, tag or file holds this text.")
@json_option
def command(folder: Path, limit: int, find: str | None, *, as_json: bool) -> None:
    """List the images that the ledgers in a FOLDER hold, the newest first.

    What `fluxwerk generate` makes is in no ledger; `fluxwerk show FILE` reads the origin of one image.
    """
    found = nlargest(limit, _images(folder, (find or "").lower()), key=lambda facts: facts["saved"])
    for facts in found:
        if as_json:
            put_json(facts)
            continue
        at = f"{datetime.fromtimestamp(facts['saved'], UTC):%Y-%m-%d %H:%M} UTC"
        prompt = " ".join(str(facts["prompt"] or "–").split())
        shown = prompt if len(prompt) <= LONGEST_PROMPT_SHOWN else f"{prompt[: LONGEST_PROMPT_SHOWN - 1]}…"
        cost = money(facts["cost"]) if facts["cost"] is not None else "cost unknown"
        maker = f" by the {facts['engine']} engine" if facts["engine"] else ""
        click.echo(f"{at}  {facts['path']}  {facts['model']}{maker}, seed {facts['seed']}, {cost}: {shown}")
    if not found and not as_json:
        ledgers = len(list(folder.glob(f"*{LEDGER_SUFFIX}")))
        click.echo(f"No image was found in {ledgers} ledgers of {folder.absolute()}.", err=True)


def _images(folder: Path, text: str) -> Iterator[dict[str, Json]]:
    for path in sorted(folder.glob(f"*{LEDGER_SUFFIX}")):
        with Ledger.open(path) as ledger:
            for row in ledger.rows(Stage.SAVED):
                facts = {**export_row(ledger, row), "ledger": str(path), "saved": row["moved"]}
                words = " ".join(str(facts[name] or "") for name in ("prompt", "model", "tag", "path"))
                if text in words.lower():
                    yield facts
