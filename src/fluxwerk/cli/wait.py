"""`fluxwerk wait`: download an image that is already paid for."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fluxwerk.cli.connection import Connection, connected, connection_options
from fluxwerk.cli.console import ProgressLine, put_json, sentence, summary
from fluxwerk.cli.creation import json_option, saved
from fluxwerk.errors import InvalidUsageError
from fluxwerk.types import Task


@click.command("wait")
@click.argument("task")
@click.option("--polling-url", metavar="URL", help="Polling URL of the task; by default one of the configured region.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; by default it is named after the task.",
)
@json_option
@connection_options
def command(task: str, polling_url: str | None, output: Path | None, connection: Connection, *, as_json: bool) -> None:
    """Wait for the task with the id TASK and download its image; nothing is submitted or charged."""
    if connection.offline:
        raise InvalidUsageError(
            "--offline cannot be used here: an offline server and its tasks end with the command that started them. "
            "Start a server with `fluxwerk serve` and pass its address as --base-url."
        )
    began = time.monotonic()
    progress = ProgressLine(offline=False, quiet=as_json)
    with progress.live("waiting"), connected(connection, progress.on_event) as client:
        url = polling_url or f"{client.access.base}/v1/get_result?id={task}"
        image = client.download(Task(task, url))
        file = saved(image, output or Path(f"{task}.{image.suffix}"))
    facts = summary(image, str(file), None, began, offline=False)
    if as_json:
        put_json(facts)
    else:
        click.echo(sentence(facts))
