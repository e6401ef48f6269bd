"""`fluxwerk models`: the catalogue as a table, or one model of it."""

from __future__ import annotations

from decimal import Decimal

import click

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model, Option, Price
from fluxwerk.cli.completion import complete_models
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.types import Json

# Columns of text where the output is not a terminal.
WIDTH = 120


@click.command("models")
@click.argument("model", required=False, shell_complete=complete_models)
@json_option
def command(model: str | None, *, as_json: bool) -> None:
    """List the models, or show the options of one MODEL."""
    rows = [catalog.get_model(model)] if model else list(catalog.list_models().values())
    if as_json:
        for row in rows:
            put_json(facts(row))
    elif model:
        _show(rows[0])
    else:
        _list(rows)


def price_of(model: Model) -> str:
    """Format the price of a model in credits, in a few characters."""
    price = model.price
    if price is None:
        return "not public"
    doubt = " ?" if "price" in model.unconfirmed else ""
    if price.image is not None:
        return (f"{_plain(price.image)} an image" if price.image else "free, local") + doubt
    if price.resolution:
        costs = [_plain(cost) for cost in price.resolution.values()]
        return f"{costs[0]} to {costs[-1]} an image{doubt}"
    assert price.first is not None
    assert price.more is not None
    return f"{_plain(price.first)} + {_plain(price.more)}/MP{doubt}"


def facts(model: Model) -> dict[str, Json]:
    """Describe a model as JSON."""
    price = model.price
    return {
        "name": model.name,
        "title": model.title,
        "path": model.path,
        "also": list(model.also),
        "aliases": list(model.aliases),
        "hosted": model.hosted,
        "slots": model.slots,
        "references": model.references,
        "price": None if price is None else _price_facts(price),
        "options": {name: option.allowed() for name, option in model.options.items()},
        "unconfirmed": list(model.unconfirmed),
        "note": model.note,
        "source": model.source,
        "checked": str(model.checked),
    }


def _price_facts(price: Price) -> dict[str, Json]:
    return {
        "first": price.first,
        "more": price.more,
        "image": price.image,
        "resolution": dict(price.resolution),
        "inputs": price.inputs,
    }


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _list(rows: list[Model]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True, style="bold")
    table.add_column("credits", no_wrap=True)
    table.add_column("images in", justify="right")
    table.add_column("slots", justify="right")
    table.add_column("best for", overflow="fold")
    for row in rows:
        taken = row.references or sum(option.type == "image" for option in row.options.values())
        table.add_row(row.name, price_of(row), str(taken or "–"), str(row.slots), row.best_for)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)
    click.echo("first MP + each further MP, references included; ? = unconfirmed. 1 credit = $0.01.")


def _show(model: Model) -> None:
    lines = [
        ("model", f"{model.name} ({model.title})"),
        ("path", ", ".join(dict.fromkeys((model.path, *model.also))) + ("" if model.hosted else " (local only)")),
        ("aliases", ", ".join(model.aliases) or "–"),
        ("credits", price_of(model)),
        ("slots", str(model.slots)),
        ("references", str(model.references)),
        ("licence", model.licence),
        ("note", model.note),
        ("unconfirmed", ", ".join(model.unconfirmed)),
        ("source", f"{model.source} (checked {model.checked})"),
    ]
    for name, text in lines:
        if text:
            click.echo(f"{name:12} {text}")
    click.echo("options")
    for option in model.options.values():
        notes = "; ".join(part for part in (_default(option), option.note) if part)
        click.echo(f"  {option.name:24} {option.allowed()}" + (f" ({notes})" if notes else ""))


def _default(option: Option) -> str:
    if option.required or option.default in (None, ""):
        return "required" if option.required else ""
    # JSON spelling, which the command line takes as well.
    return f"default {str(option.default).lower() if isinstance(option.default, bool) else option.default}"
