"""What some tests need beside this package: without it they skip, or fail where `FLUXWERK_REQUIRE` names it."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

VARIABLE = "FLUXWERK_REQUIRE"


def is_required(what: str) -> bool:
    """Whether this run insists on something."""
    return what in os.environ.get(VARIABLE, "").split(",")


def do_without(what: str, reason: str) -> NoReturn:
    """Skip what cannot be tried here, or fail it if this run insists on what it needs."""
    if is_required(what):
        pytest.fail(f"{reason}; {VARIABLE} insists on {what}", pytrace=False)
    pytest.skip(reason)
