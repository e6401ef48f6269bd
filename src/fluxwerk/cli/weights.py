"""`fluxwerk weights`: look at files of open weights before serving them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.usage import Group
from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.engines.local.checkpoint import Checkpoint
    from fluxwerk.types import Json

COLUMN = 16


@click.group("weights", cls=Group)
def command() -> None:
    """Look at files of open weights before serving them.

    \b
    fluxwerk weights inspect flux-2-klein-4b-Q4_K_S.gguf --write weights.toml
    fluxwerk serve --engine diffusers --weights weights.toml --memory 12G
    """  # noqa: D301


@command.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--pipeline", metavar="KIND", help="What the file holds, where only its name tells, such as klein-base.")
@click.option("--write", "target", type=click.Path(dir_okay=False, path_type=Path), help="weights.toml to write.")
@json_option
def inspect(file: Path, pipeline: str | None, target: Path | None, *, as_json: bool) -> None:
    """Say what FILE holds, how much memory it takes and what is missing beside it; loads nothing.

    FILE is a transformer in one .safetensors or .gguf file. Nothing is read from a network.
    """
    from fluxwerk.engines.local.checkpoint import recognise_file  # noqa: PLC0415  (the server is an extra)

    checkpoint = recognise_file(file.expanduser(), pipeline)
    if as_json:
        put_json(facts(checkpoint))
    else:
        for name, value in lines(checkpoint):
            click.echo(f"{name:{COLUMN}}{value}")
    if target is not None:
        write(checkpoint, target)


def facts(checkpoint: Checkpoint) -> dict[str, Json]:
    """Describe a file as JSON."""
    from fluxwerk.engines.local import parts  # noqa: PLC0415
    from fluxwerk.engines.local.memory import file_size  # noqa: PLC0415
    from fluxwerk.engines.local.weights import licence_of, models_of  # noqa: PLC0415

    found, missing = parts.find(checkpoint, {})
    return {
        "file": str(checkpoint.path),
        "kind": checkpoint.kind.name,
        "told_by": "tensors" if checkpoint.told else "name",
        "transformer": checkpoint.transformer,
        "layout": checkpoint.layout,
        "precision": checkpoint.precision,
        "parameters": checkpoint.parameters,
        "bytes": checkpoint.size,
        "bytes_in_memory": round(file_size(checkpoint)),
        "models": list(models_of(checkpoint)),
        "licence": licence_of(checkpoint),
        "found": {column: str(path) for column, path in found.items()},
        "missing": {part.column: f"{part.what}; usually {part.usual}" for part in missing},
    }


def lines(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Describe a file in rows of two columns."""
    from fluxwerk.engines.local import parts  # noqa: PLC0415
    from fluxwerk.engines.local.memory import file_size  # noqa: PLC0415
    from fluxwerk.engines.local.plan import gigabytes  # noqa: PLC0415
    from fluxwerk.engines.local.weights import licence_of, models_of  # noqa: PLC0415

    doubt = "" if checkpoint.told else " by the name of the file; its tensors do not tell, --pipeline does"
    yield "kind", f"{checkpoint.kind.name}{doubt}"
    yield "transformer", f"{checkpoint.transformer}, {checkpoint.parameters / 10**9:.2f} billion parameters"
    yield "precision", f"{checkpoint.precision}, names as {checkpoint.layout} has them"
    yield (
        "memory",
        f"{gigabytes(file_size(checkpoint))} as it is loaded on a GPU; the file has {gigabytes(checkpoint.size)}",
    )
    yield "serves", ", ".join(models_of(checkpoint))
    yield "licence", licence_of(checkpoint)
    found, missing = parts.find(checkpoint, {})
    for column, path in found.items():
        yield column, f"found: {path}"
    for part in missing:
        yield part.column, f"missing: {part.what}; usually {part.usual}"


def write(checkpoint: Checkpoint, target: Path) -> None:
    """Write a weights.toml that serves the file; a missing part is a comment to fill in."""
    from fluxwerk.engines.local import parts  # noqa: PLC0415
    from fluxwerk.engines.local.weights import models_of  # noqa: PLC0415

    if target.exists():
        hint = "give another name, or add the table by hand"
        raise InvalidUsageError("", faults=[Fault("--write", str(target), "exists already", hint)])
    found, missing = parts.find(checkpoint, {})
    rows: list[str] = []
    for model in models_of(checkpoint):
        rows += [f"[weights.{json.dumps(model)}]", f"path = {_quoted(checkpoint.path)}"]
        rows += [f"pipeline = {json.dumps(checkpoint.kind.name)}"]
        rows += [f"{column} = {_quoted(path)}" for column, path in found.items()]
        rows += [f'# {part.column} = "…"  # {part.what}: usually {part.usual}' for part in missing]
        rows.append("")
    try:
        target.write_text("\n".join(rows), encoding="utf-8")
    except OSError as fault:
        why = f"cannot be written: {fault.strerror}"
        raise InvalidUsageError(
            "", faults=[Fault("--write", str(target), why, "give a file in a folder that you may write to")]
        ) from None
    click.echo(f"{target} is written" + (f"; fill in {len(missing)} parts." if missing else "."), err=True)


def _quoted(path: Path) -> str:
    return json.dumps(str(path.resolve()), ensure_ascii=False)
