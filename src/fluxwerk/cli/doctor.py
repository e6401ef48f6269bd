"""`fluxwerk doctor`: what stands between this machine and an image, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fluxwerk.cli import checks
from fluxwerk.cli.connection import Connection, connection_options
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option

MARKS = {"good": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✗", "red")}


@click.command("doctor")
@json_option
@connection_options
def command(connection: Connection, *, as_json: bool) -> None:
    """Look at key, credits, clock, DNS, certificates, proxy, latency, disk, ledgers and GPU; each line says what to do.

    Nothing is charged: only the balance is asked for, and the start page of each region. The exit code is 1 if
    something stands in the way of an image.
    """
    bad = False
    for finding in checks.findings(connection, Path.cwd()):
        bad = bad or finding.level == "bad"
        if as_json:
            put_json({"check": finding.check, "level": finding.level, "text": finding.text, "todo": finding.todo})
            continue
        mark, colour = MARKS[finding.level]
        click.echo(f"{click.style(mark, fg=colour)} {finding.check:12} {finding.text}")
        if finding.todo:
            click.echo(f"  {'':12} → {finding.todo}")
    sys.exit(1 if bad else 0)
