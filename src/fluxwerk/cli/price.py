"""`fluxwerk price`: an estimate of what images will cost, without a request."""

from __future__ import annotations

from pathlib import Path

import click

from fluxwerk import catalog, imagefile
from fluxwerk.catalog import prices
from fluxwerk.catalog.sizes import Size
from fluxwerk.cli.completion import complete_models
from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.errors import Fault, InvalidUsageError

# Bytes that are read of a file to find its size behind the metadata.
HEAD = 1024 * 1024


@click.command("price")
@click.argument("model", shell_complete=complete_models)
@click.option(
    "--width", type=click.IntRange(min=1), help="In pixels; by default that of the first input image, or 1024."
)
@click.option(
    "--height", type=click.IntRange(min=1), help="In pixels; by default that of the first input image, or 1024."
)
@click.option(
    "-i",
    "--image",
    "images",
    multiple=True,
    metavar="FILE|WxH",
    help="Input image, as a file or as its size; may be repeated.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), default=1, show_default=True, help="Number of images.")
@json_option
def command(
    model: str, width: int | None, height: int | None, images: tuple[str, ...], count: int, *, as_json: bool
) -> None:
    """Estimate what images of a MODEL will cost; the service decides what is charged."""
    row = catalog.get_model(model)
    one = prices.estimate(row, width, height, [size_of(text) for text in images])
    total = one * count
    if as_json:
        put_json({"model": row.name, "count": count, "estimated_cost_each": one, "estimated_cost": total})
        return
    each = f", {money(one)} each" if count > 1 else ""
    doubt = "; the price is unconfirmed" if "price" in row.unconfirmed else ""
    click.echo(f"{count} × {row.name}: about {money(total)}{each}{doubt}")


def size_of(text: str) -> Size:
    """Read an option that names an image, by its file or by its size."""
    width, cross, height = text.lower().partition("x")
    if cross and width.isdigit() and height.isdigit():
        return int(width), int(height)
    file = Path(text)
    if not file.is_file():
        raise InvalidUsageError("", faults=[Fault("--image", text, "must be a file or a size such as 1024x768")])
    with file.open("rb") as opened:
        found = imagefile.measure(opened.read(HEAD))
    if found is None:
        raise InvalidUsageError("", faults=[Fault("--image", text, "must be a PNG, JPEG or WebP file")])
    return found.upright
