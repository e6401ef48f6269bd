"""`fluxwerk generate`: from a prompt to a file."""

from __future__ import annotations

from typing import Any

import click

from fluxwerk.cli.connection import Connection, connection_options
from fluxwerk.cli.creation import make, making_options
from fluxwerk.client.base import DEFAULT_MODEL


@click.command("generate")
@click.argument("prompt")
@click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, help="`fluxwerk models` lists them.")
@click.option("--width", type=int, help="In pixels.")
@click.option("--height", type=int, help="In pixels.")
@click.option("--aspect-ratio", metavar="W:H", help="For the models that take a ratio instead of a size.")
@click.option("--raw/--no-raw", default=None, help="Less processed images, with Ultra.")
@click.option("-i", "--image", "images", multiple=True, metavar="FILE|URL", help="A reference image; may be repeated.")
@making_options
@connection_options
def command(prompt: str, model: str, connection: Connection, **given: Any) -> None:
    """Make an image from a PROMPT.

    \b
    fluxwerk generate "A red fox in the snow" -o fox.png
    fluxwerk generate "A poster" -m flux-2-flex --steps 50 --width 1024 --height 1536
    """  # noqa: D301
    make(model, prompt, connection, **given)
