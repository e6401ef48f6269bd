"""`fluxwerk edit`: change images by a prompt."""

from __future__ import annotations

from typing import Any

import click

from fluxwerk.cli.connection import Connection, connection_options
from fluxwerk.cli.creation import creation_options, make
from fluxwerk.cli.usage import PromptCommand
from fluxwerk.client.base import DEFAULT_MODEL


@click.command("edit", cls=PromptCommand)
@click.argument("prompt", required=False)
@click.option(
    "-i",
    "--image",
    "images",
    multiple=True,
    required=True,
    metavar="FILE|URL",
    help="Image to change, or to call image 1, image 2 … in the prompt; may be repeated.",
)
@click.option(
    "-m", "--model", default=DEFAULT_MODEL, show_default=True, help="Name of the model; `fluxwerk models` lists them."
)
@click.option("--width", type=int, help="Width of the image in pixels; by default that of the first input image.")
@click.option("--height", type=int, help="Height of the image in pixels; by default that of the first input image.")
@click.option("--aspect-ratio", metavar="W:H", help="Aspect ratio, for the models that take one instead of a size.")
@creation_options
@connection_options
def command(prompt: str | None, model: str, connection: Connection, **given: Any) -> None:
    """Change one or more images by a PROMPT.

    \b
    fluxwerk edit "Change the background to a sunset" -i photo.jpg -o sunset.png
    fluxwerk edit "The cat from image 1 in the room from image 2" -i cat.jpg -i room.jpg
    """  # noqa: D301
    make(model, prompt, connection, **given)
