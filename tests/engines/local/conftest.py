"""Checkpoints built once in a test run, and families loaded from them once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fluxwerk.engines.local.family import Family


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what builds a tiny checkpoint by its name, once."""
    from support import tiny  # noqa: PLC0415  (needs torch)

    root = tmp_path_factory.mktemp("weights")
    return cache(lambda name: tiny.build(name, root / name))


@pytest.fixture(scope="session")
def family(checkpoint: Callable[[str], Path]) -> Callable[..., Family]:
    """Return what loads the family of a tiny checkpoint, once; `steps` holds for every order."""
    from fluxwerk.engines.local.load import load  # noqa: PLC0415
    from fluxwerk.engines.local.weights import read  # noqa: PLC0415

    @cache
    def pipeline(name: str) -> Family:
        row = next(iter(read(str(checkpoint(name))).rows.values()))
        return load([row], "cpu")[row.model]

    def loaded(name: str, steps: int | None = None) -> Family:
        from dataclasses import replace  # noqa: PLC0415

        first = pipeline(name)
        return type(first)(first.pipe, replace(first.row, steps=steps), "cpu", first.encoder) if steps else first

    return loaded
