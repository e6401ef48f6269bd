"""`fluxwerk tasks`: what the operator of a gateway has to decide about its tasks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.place import overruled
from fluxwerk.cli.usage import Group
from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.server.state.doubts import UpstreamDoubt, UpstreamDoubts

C = TypeVar("C", bound=Callable[..., Any])


def place_options(function: C) -> C:
    """Add `--state` and `--database`, of which one is needed."""
    state = click.option("--state", type=click.Path(file_okay=False), help="Folder of the gateway's state.")
    database = click.option(
        "--database", metavar="URL", envvar="FLUXWERK_DATABASE", help="PostgreSQL of the gateways, in place of --state."
    )
    return state(database(function))


@click.group("tasks", cls=Group)
def command() -> None:
    """List and settle the tasks of a gateway that are in doubt.

    A submit to the service that was not answered may have been charged. The gateway does not repeat it: its task ends
    with the error in_doubt, and its cost stays booked until you settle it.

    \b
    fluxwerk tasks doubts --state DIR
    fluxwerk tasks settle TASK --not-charged --state DIR
    """  # noqa: D301


@command.command("doubts")
@place_options
@json_option
def doubts(state: str | None, database: str | None, *, as_json: bool) -> None:
    """List the tasks in doubt, the oldest first; look for them in the service's own list of your usage."""
    with _opened(state, database) as opened:
        found = opened.listed()
    for doubt in found:
        if as_json:
            put_json(_fields(doubt))
        else:
            cost = "an unknown cost" if doubt.booked is None else money(doubt.booked)
            click.echo(f"{doubt.task}  {_moment(doubt.intended)}  {doubt.model}  {cost}  {doubt.reason}")
    if not found and not as_json:
        click.echo("No task is in doubt.", err=True)


@command.command("settle")
@click.argument("task")
@click.option("--charged", is_flag=True, help="The service charged for it: its cost stays booked.")
@click.option("--not-charged", is_flag=True, help="The service did not charge for it: its cost comes back.")
@place_options
def settle(task: str, state: str | None, database: str | None, *, charged: bool, not_charged: bool) -> None:
    """Settle one TASK in doubt by what you found at the service."""
    if charged == not_charged:
        raise InvalidUsageError("Exactly one of --charged and --not-charged is needed.")
    with _opened(state, database) as opened:
        if not opened.settle(task, charged=charged):
            hint = "`fluxwerk tasks doubts` lists the tasks in doubt"
            raise InvalidUsageError("", faults=[Fault("TASK", task, "is not in doubt", hint)])
    click.echo(f"Task {task} is settled: {'its cost stays booked' if charged else 'its cost came back'}.", err=True)


@contextmanager
def _opened(state: str | None, database: str | None) -> Generator[UpstreamDoubts]:
    from fluxwerk.server.state.dialect import DATABASE  # noqa: PLC0415  (the server is an extra)
    from fluxwerk.server.state.doubts import UpstreamDoubts  # noqa: PLC0415
    from fluxwerk.server.state.places import open_shared  # noqa: PLC0415

    if overruled("database", "state"):
        database = None
    if (state is None) == (database is None):
        raise InvalidUsageError("Exactly one of --state DIR and --database URL is needed.")
    if state is not None and not (Path(state) / DATABASE).exists():
        raise InvalidUsageError("", faults=[Fault("--state", state, "has no state of a server", "name its folder")])
    with open_shared(state, database) as opened:
        yield UpstreamDoubts(opened)


def _fields(doubt: UpstreamDoubt) -> dict[str, object]:
    return {
        "task": doubt.task,
        "submitted": doubt.intended,
        "model": doubt.model,
        "booked": doubt.booked,
        "account": doubt.account,
        "reason": doubt.reason,
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
