"""`fluxwerk show`: an image and where it came from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from fluxwerk import imagefile
from fluxwerk.batch.provenance import read_origin
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.picture import draw
from fluxwerk.errors import InvalidUsageError
from fluxwerk.storage import read_file
from fluxwerk.types import Json

LARGEST_SHOWN = 100 * 1024 * 1024


@click.command("show")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def command(file: Path, *, as_json: bool) -> None:
    """Show the image FILE in terminals that can, and its origin: model, prompt, seed, cost, task.

    The origin is read from the file itself, or from the JSON file beside it, as `fluxwerk batch` writes them.
    """
    data = read_file(file, LARGEST_SHOWN)
    found = imagefile.measure(data)
    if found is None:
        raise InvalidUsageError(f"{file} is no PNG, JPEG or WebP image; name an image.")
    width, height = found.upright
    facts: dict[str, Json] = {"file": str(file), "content_type": found.content_type, "width": width, "height": height}
    try:
        facts |= {"origin": read_origin(file)}
    except InvalidUsageError as missing:
        facts |= {"origin": None, "note": str(missing)}
    if as_json:
        put_json(facts)
        return
    if sys.stdout.isatty():
        click.echo(draw(data, os.environ))
    click.echo(f"{file}: {width}×{height}, {found.content_type}, {len(data)} bytes")
    origin: Json = facts["origin"]
    if origin is None:
        click.echo(facts["note"])
        return
    for name, value in _lines(origin):
        click.echo(f"  {name:14} {value}")
    click.echo(f"Make it again: fluxwerk replay {file} -o again.{found.content_type.partition('/')[2]}")


def _lines(origin: dict[str, Json]) -> list[tuple[str, str]]:
    request: dict[str, Json] = origin.get("request") or {}
    rest = {name: value for name, value in origin.items() if name not in ("request", "fluxwerk")}
    shown = {"model": rest.pop("model", None), "prompt": request.get("prompt"), **rest}
    shown |= {name: value for name, value in request.items() if name not in ("prompt", *shown)}
    return [(name, " ".join(str(value).split())) for name, value in shown.items() if value is not None]
