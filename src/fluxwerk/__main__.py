"""`python -m fluxwerk` is the command line."""

from __future__ import annotations

from fluxwerk.cli import main

main()
