"""`fluxwerk fill`: repaint what a mask covers."""

from __future__ import annotations

from typing import Any

import click

from fluxwerk.cli.connection import Connection, connection_options
from fluxwerk.cli.making import make, making_options
from fluxwerk.client.mask import CONVENTIONS


@click.command("fill")
@click.argument("prompt", required=False)
@click.option("-i", "--image", "images", required=True, multiple=True, metavar="FILE|URL", help="The image to change.")
@click.option(
    "--mask",
    metavar="FILE|URL",
    help="A black and white image; without one, the image's transparent part is repainted.",
)
@click.option(
    "--mask-is",
    type=click.Choice(CONVENTIONS),
    help="What marks the part of the mask to repaint; by default the mask itself tells, and white is the rule.",
)
@click.option("-m", "--model", default="flux-pro-1.0-fill", show_default=True, help="`fluxwerk models` lists them.")
@making_options
@connection_options
def command(prompt: str | None, model: str, connection: Connection, **given: Any) -> None:
    """Repaint what a mask covers with what the PROMPT says.

    \b
    fluxwerk fill "a wooden bench" -i garden.png --mask mask.png -o bench.png
    fluxwerk fill "a wooden bench" -i garden.png --mask hole.png --mask-is transparent
    """  # noqa: D301
    make(model, prompt, connection, **given)
