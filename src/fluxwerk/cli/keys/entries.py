"""`fluxwerk keys list`: every key, by the name of its application and its last characters."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.keys.place import KeyPlace, place_options
from fluxwerk.cli.keys.terms import describe

if TYPE_CHECKING:
    from fluxwerk.server.state.applications import ApplicationEntry, KeyRow


@click.command("list")
@json_option
@place_options
def command(place: KeyPlace, *, as_json: bool) -> None:
    """List the keys that are open; only their last characters are shown.

    With --json also those that have ended.
    """
    if place.is_file:
        _list_file(place, as_json=as_json)
        return
    with place.open() as applications:
        entries = applications.entries()
    now = time.time()
    for entry in entries:
        if as_json:
            put_json(_row(entry))
        else:
            keys = ", ".join(_shown(key) for key in entry.keys if key.ends is None or key.ends > now) or "no key"
            said = f"revoked {_moment(entry.revoked)}" if entry.revoked else describe(asdict(entry.application))
            spent = f"{entry.spent.normalize():f} spent"
            click.echo(f"{entry.application.name}  {keys}  created {_moment(entry.created)}  {spent}  {said}")


def _list_file(place: KeyPlace, *, as_json: bool) -> None:
    for entry in place.keyring.entries():
        if as_json:
            row = asdict(entry)
            del row["sha256"]
            put_json(row)
        else:
            state = f"revoked {entry.revoked}" if entry.revoked else f"{entry.credits} credits"
            click.echo(f"{entry.name}  {entry.shown}  created {entry.created}  {state}")


def _shown(key: KeyRow) -> str:
    return key.shown if key.ends is None else f"{key.shown} (until {_moment(key.ends)})"


def _row(entry: ApplicationEntry) -> dict[str, object]:
    row = asdict(entry.application)
    del row["account"]
    row["models"] = sorted(row["models"]) if row["models"] else None
    keys = [{"shown": key.shown, "created": _moment(key.created), "ends": _moment(key.ends)} for key in entry.keys]
    times = {"created": _moment(entry.created), "revoked": _moment(entry.revoked)}
    return {**row, "spent": entry.spent, **times, "keys": keys}


def _moment(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
