"""`fluxwerk wait`: collect an image that is already paid for."""

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
@click.option("--polling-url", metavar="URL", help="The URL that the submit named; by default the endpoint's own.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@json_option
@connection_options
def command(task: str, polling_url: str | None, output: Path | None, connection: Connection, *, as_json: bool) -> None:
    """Wait for the TASK with that id and download its image; nothing is submitted or charged."""
    if connection.offline:
        raise InvalidUsageError(
            "An offline server ends with its command, and its tasks with it; there is nothing to collect."
        )
    began = time.monotonic()
    watch = ProgressLine(offline=False, quiet=as_json)
    with watch.live("waiting"), connected(connection, watch.hear) as client:
        url = polling_url or f"{client.access.base}/v1/get_result?id={task}"
        image = client.download(Task(task, url))
        file = saved(image, output or Path(f"{task}.{image.suffix}"))
    facts = summary(image, str(file), None, began, offline=False)
    if as_json:
        put_json(facts)
    else:
        click.echo(sentence(facts))
