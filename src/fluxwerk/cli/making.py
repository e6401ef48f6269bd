"""What generate, edit and fill have in common: their options, and the way from a prompt to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from fluxwerk import catalog
from fluxwerk.catalog import prices
from fluxwerk.catalog.rows import Model
from fluxwerk.cli.connection import Connection, connected
from fluxwerk.cli.console import ProgressLine, money, put_json, sentence, summary
from fluxwerk.cli.output import check_output, format_of, is_stdout, output_options, save_image
from fluxwerk.client.inputs import compose
from fluxwerk.errors import Fault, InvalidUsageError, UnknownPriceError
from fluxwerk.types import Json, Request

F = TypeVar("F", bound=Callable[..., Any])
LONGEST_SHOWN = 120

_SHARED = (
    click.option("--seed", type=int, help="The same seed makes the same image."),
    click.option(
        "--format", "output_format", type=click.Choice(["png", "jpeg", "webp"]), help="By default that of -o."
    ),
    click.option("--safety-tolerance", type=int, help="How much is let through; 0 is strictest."),
    click.option("--upsampling/--no-upsampling", "prompt_upsampling", default=None, help="Let the service rewrite it."),
    click.option("--steps", type=int, help="Of the models that take it."),
    click.option("--guidance", type=float, help="Of the models that take it."),
    click.option(
        "--option",
        "options",
        metavar="NAME=VALUE",
        multiple=True,
        help="Any other option of the model; `fluxwerk models MODEL` shows them.",
    ),
    output_options,
    click.option("--dry-run", is_flag=True, help="Show the request and its price; send nothing."),
    click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object on stdout."),
)


def making_options(command: F) -> F:
    """Add the options that every command which makes an image shares."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


def make(
    name: str,
    prompt: str | None,
    connection: Connection,
    *,
    images: Sequence[str] = (),
    options: Sequence[str] = (),
    output: Path | None,
    overwrite: bool = False,
    dry_run: bool,
    as_json: bool,
    **given: Json,
) -> None:
    """Check the request, make the image, save it, and say so."""
    model = catalog.get_model(name)
    wanted = {key: value for key, value in given.items() if value is not None} | _parse(model, options)
    _choose_format(model, wanted, output)
    sources = [_path_or_url(image) for image in images]
    request = compose(model, prompt, images=sources, options=wanted)
    estimate = _estimate(request, model)
    if dry_run:
        _show_dry_run(model, request, estimate, as_json=as_json)
        return
    check_output(output, as_json=as_json)
    _run(model, request, connection, output, estimate, overwrite=overwrite, as_json=as_json)


def _run(
    model: Model,
    request: Request,
    connection: Connection,
    output: Path | None,
    estimate: Decimal | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    began = time.monotonic()
    watch = ProgressLine(offline=connection.offline, quiet=as_json)
    with watch.live(model.name), connected(connection, watch.hear) as client:
        image = client.generate(request, model=model)
        file = save_image(image, output or Path(f"{model.name}-{image.seed}"), overwrite=overwrite)
    facts = summary(image, str(file), estimate, began, offline=connection.offline)
    if as_json:
        put_json(facts)
    else:
        click.echo(sentence(facts), err=is_stdout(file))


def _path_or_url(text: str) -> str | Path:
    """Take what was typed as a file unless it is plainly a URL: nobody types base64."""
    return text if text.startswith(("http://", "https://", "data:")) else Path(text)


def _choose_format(model: Model, wanted: dict[str, Json], output: Path | None) -> None:
    suffix = format_of(output)
    if suffix is None:
        return
    asked = wanted.get("output_format")
    if asked is not None and asked != suffix:
        raise InvalidUsageError(
            "", faults=[Fault("--format", asked, f"does not go with {output}", "leave one of them out")]
        )
    if "output_format" in model.options:
        wanted["output_format"] = suffix


def _parse(model: Model, options: Sequence[str]) -> dict[str, Json]:
    parsed: dict[str, Json] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidUsageError("", faults=[Fault("--option", text, "must look like NAME=VALUE")])
        parsed[name] = _convert(model, name, value)
    return parsed


def _convert(model: Model, name: str, value: str) -> Json:
    option = model.options.get(name)
    kind = option.type if option else "string"
    if kind in ("image", "images"):
        return _path_or_url(value)
    if kind == "boolean" and value.lower() in ("true", "false", "yes", "no", "1", "0"):
        return value.lower() in ("true", "yes", "1")
    try:
        return {"integer": int, "number": float}.get(kind, str)(value)
    except ValueError:
        # The catalogue's check names the field and what is allowed.
        return value


def _estimate(request: Request, model: Model) -> Decimal | None:
    try:
        return prices.estimate_request(request, model)
    except UnknownPriceError:
        return None


def _show_dry_run(model: Model, request: Request, estimate: Decimal | None, *, as_json: bool) -> None:
    secret = {option.name for option in model.options.values() if option.type == "secret"}
    body = {**request.fields, **model.sends}
    body = {name: "<secret>" if name in secret else _elided(value) for name, value in body.items()}
    if as_json:
        put_json({"method": "POST", "path": model.path, "body": body, "estimated_cost": estimate})
        return
    click.echo(f"POST {model.path}")
    for name, value in body.items():
        click.echo(f"  {name}: {value}")
    price = f"about {money(estimate)}" if estimate is not None else f"unknown: {model.name} has no public price"
    click.echo(f"Price: {price}. Nothing was sent.")


def _elided(value: Json) -> Json:
    if isinstance(value, str) and len(value) > LONGEST_SHOWN and " " not in value and "://" not in value:
        return f"<{len(value)} characters of base64>"
    return [_elided(item) for item in cast("list[Json]", value)] if isinstance(value, list) else value


def json_option(command: F) -> F:
    """Add --json to a command that shows something."""
    return click.option("--json", "as_json", is_flag=True, help="Answer with JSON on stdout.")(command)
