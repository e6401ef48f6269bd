"""`fluxwerk choose`: which model for a wish, why, and what it will cost."""

from __future__ import annotations

import click

from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.price import size_of
from fluxwerk.cli.usage import PromptCommand
from fluxwerk.prompt import choose


@click.command("choose", cls=PromptCommand)
@click.argument("prompt", metavar="WISH")
@click.option("--width", type=click.IntRange(min=1), default=1024, show_default=True, help="In pixels.")
@click.option("--height", type=click.IntRange(min=1), default=1024, show_default=True, help="In pixels.")
@click.option("-i", "--image", "images", multiple=True, metavar="FILE|WxH", help="Image to work on; may be repeated.")
@click.option("--mask", is_flag=True, help="There is a mask for the image.")
@json_option
def command(prompt: str, width: int, height: int, images: tuple[str, ...], *, mask: bool, as_json: bool) -> None:
    """Recommend models for a WISH in words, the best first; sends nothing.

    \b
    fluxwerk choose "a poster with the title OPEN AIR for a festival"
    fluxwerk choose "remove the tourists" -i beach.jpg --mask
    """  # noqa: D301
    found = choose(prompt, width=width, height=height, images=[size_of(text) for text in images], mask=mask)
    if as_json:
        for one in found:
            put_json({"model": one.model, "estimated_cost": one.estimate, "reasons": list(one.reasons)})
        return
    for number, one in enumerate(found, 1):
        price = "price not public" if one.estimate is None else f"about {money(one.estimate)} an image"
        click.echo(f"{number}. {one.model}: {price}")
        for reason in one.reasons:
            click.echo(f"   {reason}")
