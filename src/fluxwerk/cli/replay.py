"""`fluxwerk replay`: rebuild the request of an image, and make the image again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fluxwerk.batch.provenance import is_cut, read_origin
from fluxwerk.cli.connection import Connection, connection_options
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import make
from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger.inputs import is_mark
from fluxwerk.types import Json


@click.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Make the image again and write it to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@connection_options
def command(file: Path, output: Path | None, connection: Connection, *, as_json: bool) -> None:
    """Rebuild the request of the image FILE; with -o the request is sent again, and charged.

    The request is read from the file itself, or from the JSON file beside it.
    """
    facts = read_origin(file)
    fields = _fields(facts)
    if output is None:
        put_json({"model": facts["model"], "request": fields})
        return
    _check(file, fields)
    given: dict[str, Any] = {name: value for name, value in fields.items() if name != "prompt"}
    make(str(facts["model"]), fields.get("prompt"), connection, output=output, dry_run=False, as_json=as_json, **given)


def _fields(facts: Mapping[str, Json]) -> dict[str, Json]:
    fields: dict[str, Json] = dict(facts.get("request") or {})
    if facts.get("seed") is not None:
        fields["seed"] = facts["seed"]
    return fields


def _check(file: Path, fields: Mapping[str, Json]) -> None:
    inputs = [name for name, value in fields.items() if is_mark(value)]
    if inputs:
        raise InvalidUsageError(
            f"{file} was made from local images ({', '.join(inputs)}), and only their hashes were recorded. "
            "Make it again with `fluxwerk edit` and the images."
        )
    cut = [name for name, value in fields.items() if name != "prompt" and is_cut(value)]
    if cut:
        raise InvalidUsageError(
            f"{file} was made from URLs ({', '.join(cut)}) whose queries were not recorded. "
            "Make it again with `fluxwerk edit` and the URLs."
        )
    if "prompt" not in fields:
        raise InvalidUsageError(
            f"The prompt of {file} was not recorded. Make it again with `fluxwerk generate` and the prompt."
        )
