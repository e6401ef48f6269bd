"""The command line: one file per command, each loaded when it is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without the extra `cli` print how to install it."""
    try:
        from fluxwerk.cli.group import group  # noqa: PLC0415  (click is an extra)
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.exit("The command line needs the package click. Install it: pip install 'fluxwerk[cli]'")
    group(prog_name="fluxwerk")
