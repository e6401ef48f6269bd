"""The creation of an image, which generate, edit, fill and replay share: from options and a prompt to a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from fluxwerk import catalog
from fluxwerk.catalog import prices, sizes
from fluxwerk.catalog.rows import Model
from fluxwerk.cli.connection import Connection, connected
from fluxwerk.cli.console import ProgressLine, money, put_json, sentence, summary
from fluxwerk.cli.doubt import DoubtOptions, doubt_options, wants_again
from fluxwerk.cli.output import check_output, format_of, is_stdout, output_options, save_image
from fluxwerk.cli.series import Series, numbered
from fluxwerk.cli.sheet import check_sheet
from fluxwerk.client.inputs import compose
from fluxwerk.errors import Fault, InDoubtError, InvalidUsageError, UnknownPriceError
from fluxwerk.types import Json, Request

F = TypeVar("F", bound=Callable[..., Any])
LONGEST_VALUE = 120

_SHARED = (
    click.option("--seed", type=int, help="Seed of the random noise; the same seed repeats an image."),
    click.option(
        "--format",
        "output_format",
        type=click.Choice(["png", "jpeg", "webp"]),
        help="Image format; by default that of the file name in -o.",
    ),
    click.option("--safety-tolerance", type=int, help="Moderation tolerance; 0 is the strictest."),
    click.option(
        "--upsampling/--no-upsampling", "prompt_upsampling", default=None, help="Let the service extend the prompt."
    ),
    click.option("--steps", type=int, help="Number of denoising steps, for the models that take it."),
    click.option("--guidance", type=float, help="Guidance scale, for the models that take it."),
    click.option(
        "--option",
        "options",
        metavar="NAME=VALUE",
        multiple=True,
        help="Any other option of the model; `fluxwerk models MODEL` shows them.",
    ),
    output_options,
    doubt_options,
    click.option("--allow-empty-prompt", is_flag=True, help="Send an empty prompt; it costs the same as any other."),
    click.option("--dry-run", is_flag=True, help="Show the request and its price; send nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
)


def creation_options(command: F) -> F:
    """Add the options that generate, edit and fill share."""
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
    count: int = 1,
    sheet: Path | None = None,
    allow_empty_prompt: bool = False,
    dry_run: bool,
    as_json: bool,
    on_doubt: str = "settle",
    exclusive: bool = False,
    **given: Json,
) -> None:
    """Check the request, make the images, save them, and print what was made."""
    if prompt is not None and not prompt.strip() and not allow_empty_prompt:
        hint = "describe the image, or pass --allow-empty-prompt"
        raise InvalidUsageError("", faults=[Fault("prompt", prompt, "must hold at least one word", hint)])
    model = catalog.get_model(name)
    wanted = {key: value for key, value in given.items() if value is not None} | _parse(model, options)
    _choose_format(model, wanted, output)
    sources = [_path_or_url(image) for image in images]
    request = compose(model, prompt, images=sources, options=wanted, allow_empty_prompt=allow_empty_prompt)
    requests = numbered(request, count)
    doubts = DoubtOptions(on_doubt, exclusive)
    doubts.check(many=count > 1 or bool(sheet))
    estimate = _estimate(request, model)
    _announce_size(model, request)
    if dry_run:
        _show_dry_run(model, request, estimate, count, as_json=as_json)
        return
    check_output(output, count=count, as_json=as_json)
    if sheet:
        check_sheet(sheet)
    progress = ProgressLine(offline=connection.offline, quiet=as_json)
    if count > 1 or sheet:
        save = partial(save_image, overwrite=overwrite)
        series = Series(model, output, sheet, estimate, save, progress, offline=connection.offline, as_json=as_json)
        opened = connected(connection, progress.on_event, **doubts.of_client)
        with progress.live(f"{count} × {model.name}"), opened as client:
            code = series.run(client, requests)
        sys.exit(code)
    while not _run(
        model, request, connection, output, estimate, progress, doubts, overwrite=overwrite, as_json=as_json
    ):
        pass


def _run(
    model: Model,
    request: Request,
    connection: Connection,
    output: Path | None,
    estimate: Decimal | None,
    progress: ProgressLine,
    doubts: DoubtOptions,
    *,
    overwrite: bool,
    as_json: bool,
) -> bool:
    """Make and save one image; false says that its submit is in doubt, and that a person wants it to leave again."""
    began = time.monotonic()
    try:
        with progress.live(model.name), connected(connection, progress.on_event, **doubts.of_client) as client:
            image = client.generate(request, model=model)
            file = save_image(image, output or Path(f"{model.name}-{image.seed}"), overwrite=overwrite)
    except InDoubtError as doubt:
        if doubts.asks and wants_again(doubt):
            return False
        raise
    facts = summary(image, str(file), estimate, began, offline=connection.offline)
    if as_json:
        put_json(facts)
    else:
        click.echo(sentence(facts), err=is_stdout(file))
    return True


def _announce_size(model: Model, request: Request) -> None:
    """Say before the submit when the image becomes smaller than what was asked for."""
    asked = sizes.requested_size(model, request.fields, request.sizes)
    delivered = sizes.output_size(model, request.fields, request.sizes)
    if asked == delivered or None in request.sizes[:1]:
        return
    click.echo(
        f"Note: the image will be {delivered[0]}×{delivered[1]} instead of {asked[0]}×{asked[1]}: "
        f"{model.name} rounds width and height down to multiples of {model.grid}.",
        err=True,
    )


def _path_or_url(text: str) -> str | Path:
    """Read an argument as a file unless it is a URL; base64 is not typed by hand."""
    return text if text.startswith(("http://", "https://", "data:")) else Path(text)


def _choose_format(model: Model, wanted: dict[str, Json], output: Path | None) -> None:
    suffix = format_of(output)
    if suffix is None:
        return
    asked = wanted.get("output_format")
    if asked is not None and asked != suffix:
        raise InvalidUsageError(
            "", faults=[Fault("--format", asked, f"contradicts the file name {output}", "leave one of them out")]
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


def _show_dry_run(model: Model, request: Request, estimate: Decimal | None, count: int, *, as_json: bool) -> None:
    secret = {option.name for option in model.options.values() if option.type == "secret"}
    body = {**request.fields, **model.sends}
    body = {name: "<secret>" if name in secret else _elided(value) for name, value in body.items()}
    if as_json:
        total = None if estimate is None else estimate * count
        put_json({"method": "POST", "path": model.path, "body": body, "count": count, "estimated_cost": total})
        return
    click.echo(f"POST {model.path}")
    for name, value in body.items():
        click.echo(f"  {name}: {value}")
    each = f" for {count} images, {money(estimate)} each" if estimate is not None and count > 1 else ""
    price = (
        f"about {money(estimate * count)}{each}"
        if estimate is not None
        else f"unknown: {model.name} has no public price"
    )
    click.echo(f"Price: {price}. Nothing was sent.")


def _elided(value: Json) -> Json:
    if isinstance(value, str) and len(value) > LONGEST_VALUE and " " not in value and "://" not in value:
        return f"<{len(value)} characters of base64>"
    return [_elided(item) for item in cast("list[Json]", value)] if isinstance(value, list) else value


def json_option(command: F) -> F:
    """Add --json to a command that shows something."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)
