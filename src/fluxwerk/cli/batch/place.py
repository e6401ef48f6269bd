"""Which ledger a command is about: that of the manifest, the one that was named, or the only one in this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.database import is_database
from fluxwerk.ledger.ledger import Ledger

Command = TypeVar("Command", bound=Callable[..., Any])
LEDGER_SUFFIX = ".ledger"


def ledger_option(command: Command) -> Command:
    """Add --ledger to a command."""
    return click.option(
        "-l",
        "--ledger",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The file that keeps the jobs; by default that of the manifest, or the only *.ledger in this folder.",
    )(command)


def file_argument(command: Command) -> Command:
    """Add the optional argument FILE, a manifest or its ledger."""
    return click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))(command)


def ledger_of(file: Path | None, ledger: Path | None) -> Path:
    """Find the ledger's path; raises `InvalidUsageError` where it is not clear which is meant."""
    if ledger:
        return ledger
    if file:
        return file if is_database(file) or file.suffix == LEDGER_SUFFIX else file.with_suffix(LEDGER_SUFFIX)
    found = sorted(Path.cwd().glob(f"*{LEDGER_SUFFIX}"))
    if len(found) == 1:
        return found[0]
    reason = "there is none in this folder" if not found else f"there are {len(found)} in this folder"
    raise InvalidUsageError(
        "", faults=[Fault("--ledger", None, f"{reason}; name one, or the manifest it was planned from")]
    )


def open_ledger(file: Path | None, ledger: Path | None) -> Ledger:
    """Open a ledger that is there; raises `InvalidUsageError` if it is not."""
    path = ledger_of(file, ledger)
    if not path.is_file():
        raise InvalidUsageError(f"There is no ledger {path}; make one with `fluxwerk batch plan MANIFEST`.")
    return Ledger.open(path)
