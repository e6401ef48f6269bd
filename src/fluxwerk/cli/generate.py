"""`fluxwerk generate`: from a prompt to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fluxwerk.cli.completion import complete_models
from fluxwerk.cli.connection import Connection, connection_options
from fluxwerk.cli.creation import creation_options, make
from fluxwerk.cli.series import LONGEST_SERIES
from fluxwerk.cli.usage import PromptCommand
from fluxwerk.client.base import DEFAULT_MODEL


@click.command("generate", cls=PromptCommand)
@click.argument("prompt")
@click.option(
    "-m",
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    shell_complete=complete_models,
    help="Name of the model; `fluxwerk models` lists them.",
)
@click.option("--width", type=int, help="Width of the image in pixels.")
@click.option("--height", type=int, help="Height of the image in pixels.")
@click.option("--aspect-ratio", metavar="W:H", help="Aspect ratio, for the models that take one instead of a size.")
@click.option("--raw/--no-raw", default=None, help="Less processed, more natural images, for the Ultra model.")
@click.option("-i", "--image", "images", multiple=True, metavar="FILE|URL", help="Reference image; may be repeated.")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1, LONGEST_SERIES),
    default=1,
    show_default=True,
    help="Number of images; the files are numbered, and with --seed each image takes the next seed.",
)
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a contact sheet of all images into this file (PNG, JPEG or WebP).",
)
@creation_options
@connection_options
def command(prompt: str, model: str, connection: Connection, **given: Any) -> None:
    """Make one or more images from a PROMPT.

    \b
    fluxwerk generate "A red fox in the snow" -o fox.png
    fluxwerk generate "A red fox in the snow" -n 4 -o fox.png --sheet foxes.png
    fluxwerk generate "A poster" -m flux-2-flex --steps 50 --width 1024 --height 1536
    """  # noqa: D301
    make(model, prompt, connection, **given)
