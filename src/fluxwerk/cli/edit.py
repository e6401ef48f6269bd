"""`fluxwerk edit`: change images by a prompt."""

from __future__ import annotations

from typing import Any

import click

from fluxwerk.cli.completion import complete_models
from fluxwerk.cli.connection import Connection, connection_options
from fluxwerk.cli.creation import creation_options, make
from fluxwerk.cli.usage import PromptCommand
from fluxwerk.client.base import DEFAULT_MODEL
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.prompt import get_recipe, list_recipes


def _show_recipes(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  (click's signature)
    if not wanted or ctx.resilient_parsing:
        return
    for recipe in list_recipes().values():
        slots = ", ".join(f"{name} ({default})" if default else name for name, default in recipe.slots.items())
        click.echo(f"{recipe.name:12} {recipe.about}; slots: {slots}")
    ctx.exit()


@click.command("edit", cls=PromptCommand)
@click.argument("prompt", required=False)
@click.option("--recipe", metavar="NAME", help="A prompt with slots instead of your own; --recipes lists them.")
@click.option("--set", "slots", metavar="SLOT=TEXT", multiple=True, help="Fill a slot of the recipe; may be repeated.")
@click.option("--recipes", is_flag=True, is_eager=True, expose_value=False, callback=_show_recipes,
              help="List the recipes with their slots.")  # fmt: skip
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
    "-m",
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    shell_complete=complete_models,
    help="Name of the model; `fluxwerk models` lists them.",
)
@click.option("--width", type=int, help="Width of the image in pixels; by default that of the first input image.")
@click.option("--height", type=int, help="Height of the image in pixels; by default that of the first input image.")
@click.option("--aspect-ratio", metavar="W:H", help="Aspect ratio, for the models that take one instead of a size.")
@creation_options
@connection_options
def command(
    prompt: str | None, model: str, connection: Connection, recipe: str | None, slots: tuple[str, ...], **given: Any
) -> None:
    """Change one or more images by a PROMPT, or by a recipe.

    \b
    fluxwerk edit "Change the background to a sunset" -i photo.jpg -o sunset.png
    fluxwerk edit "The cat from image 1 in the room from image 2" -i cat.jpg -i room.jpg
    fluxwerk edit --recipe relight --set light="warm evening sun" -i photo.jpg -o evening.png
    """  # noqa: D301
    if recipe or slots:
        prompt = _from_recipe(prompt, recipe, slots)
    make(model, prompt, connection, **given)


def _from_recipe(prompt: str | None, recipe: str | None, slots: tuple[str, ...]) -> str:
    if recipe is None:
        raise InvalidUsageError(
            "", faults=[Fault("--set", slots[0], "fills a slot of a recipe", "name one with --recipe")]
        )
    if prompt is not None:
        raise InvalidUsageError(
            "", faults=[Fault("--recipe", recipe, "takes the place of the prompt; give one of them")]
        )
    values: dict[str, str] = {}
    for text in slots:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidUsageError("", faults=[Fault("--set", text, "must look like SLOT=TEXT")])
        values[name] = value
    return get_recipe(recipe).fill(**values)
