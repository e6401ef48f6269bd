"""`fluxwerk batch sheet`: all images of a ledger on one page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from fluxwerk import storage
from fluxwerk.batch.sheet import Card, cards, check_pillow, page
from fluxwerk.cli.batch.place import file_argument, ledger_of, ledger_option, open_ledger
from fluxwerk.cli.sheet import PILLOW_FORMATS, write_sheet
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.ledger import Ledger

# A larger page is slow to open, and a larger picture is refused by viewers.
MOST_CARDS, MOST_COPIES = 2000, 400
PAGES = (".html", ".htm")


@click.command("sheet")
@file_argument
@ledger_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
              help="A file that ends in .html, .png, .jpg or .webp; NAME.html by default.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Most images; 2000 on a page, 400 in a picture.")
@click.option("--no-prompts", is_flag=True, help="Leave the prompts out.")
def command(
    file: Path | None, ledger: Path | None, output: Path | None, limit: int | None, *, no_prompts: bool
) -> None:
    """Write one HTML page of all images, with prompts, seeds, costs, failures and a filter.

    \b
    fluxwerk batch sheet prompts.csv
    fluxwerk batch sheet prompts.csv -o contact.png

    A name that ends in .png, .jpg or .webp makes a picture of the images instead. The page loads nothing from
    elsewhere.
    """  # noqa: D301
    path = ledger_of(file, ledger)
    target = output or path.with_suffix(".html")
    suffix = target.suffix.lower()
    if suffix not in (*PAGES, *PILLOW_FORMATS):
        raise InvalidUsageError("", faults=[Fault("--output", str(target), "must end in .html, .png, .jpg or .webp")])
    check_pillow()
    with open_ledger(file, ledger) as opened:
        root = opened.setting("output") or ""
        place = storage.open_storage(root) if "://" in root else None
        shown = cards(opened, place, root=root, prompts=not no_prompts and opened.setting("prompts") != "no")
        if suffix in PAGES:
            count = _write_page(opened, path, target, islice(shown, limit or MOST_CARDS))
        else:
            count = _write_picture(target, islice((card for card in shown if card.copy), limit or MOST_COPIES))
    click.echo(f"Wrote {count} jobs to {target}.", err=True)


def _write_page(ledger: Ledger, path: Path, target: Path, shown: Iterator[Card]) -> int:
    count = 0

    def counted() -> Iterator[Card]:
        nonlocal count
        for card in shown:
            count += 1
            yield card

    storage.stream(page(path.stem, ledger.budget.sums(), counted()), target)
    return count


def _write_picture(target: Path, shown: Iterator[Card]) -> int:
    images = [(card.path.rpartition("/")[2], card.copy) for card in shown]
    if not images:
        raise InvalidUsageError("No image of this ledger is saved yet; `fluxwerk batch run` makes them.")
    write_sheet(target, images, overwrite=True)
    return len(images)
