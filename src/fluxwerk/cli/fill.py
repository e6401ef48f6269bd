"""`fluxwerk fill`: repaint what a mask covers."""

from __future__ import annotations

from typing import Any

import click

from fluxwerk.cli.connection import Connection, connection_options
from fluxwerk.cli.creation import creation_options, make
from fluxwerk.cli.usage import PromptCommand


@click.command("fill", cls=PromptCommand)
@click.argument("prompt", required=False)
@click.option("-i", "--image", "images", required=True, multiple=True, metavar="FILE|URL", help="Image to change.")
@click.option("--mask", metavar="FILE|URL", help="White is repainted; without one, the image's transparent part.")
@click.option(
    "-m",
    "--model",
    default="flux-pro-1.0-fill",
    show_default=True,
    help="Name of the model; `fluxwerk models` lists them.",
)
@creation_options
@connection_options
def command(prompt: str | None, model: str, connection: Connection, **given: Any) -> None:
    """Repaint the part of an image that a mask covers, by a PROMPT.

    \b
    fluxwerk fill "a wooden bench" -i garden.png --mask mask.png -o bench.png
    """  # noqa: D301
    make(model, prompt, connection, **given)
