"""What an assistant wishes, checked and priced before anything is spent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from fluxwerk import catalog
from fluxwerk.batch.manifest import ManifestLine
from fluxwerk.batch.row import Defaults, Rows, dump
from fluxwerk.catalog.rows import IMAGE_TYPES, did_you_mean
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.job import credits_of, to_micro
from fluxwerk.types import Json

CLOSED = IMAGE_TYPES | {"url", "secret"}
LONGEST_DIGEST = 24


@dataclass(frozen=True, slots=True)
class Wish:
    """Images of one kind: the row of a manifest that asks for them, and what they should cost in credits."""

    row: Mapping[str, Json] = field(repr=False)
    model: str
    count: int
    estimate: Decimal | None

    @property
    def digest(self) -> str:
        """The same for the same wish, said twice."""
        return hashlib.sha256(dump(dict(sorted(self.row.items()))).encode()).hexdigest()[:LONGEST_DIGEST]


def read_wish(columns: Mapping[str, Json], options: Mapping[str, Json] | None = None) -> Wish:
    """Check a row as a batch does, and price it; `options` are further options of its model.

    Raises `InvalidUsageError` with every fault.
    """
    given = {**_plain(str(columns["model"]), options or {}), **columns}
    row = {name: value for name, value in given.items() if value not in (None, [], "")}
    jobs = list(Rows(Defaults(str(row["model"]), Path.cwd(), {})).planned_jobs(ManifestLine(1, row)))
    prices = [job.estimate for job in jobs]
    known = [price for price in prices if price is not None]
    total = credits_of(to_micro(sum(known, Decimal(0))) or 0) if len(known) == len(prices) else None
    return Wish(row, jobs[0].model, len(jobs), total)


def _plain(model: str, options: Mapping[str, Json]) -> Mapping[str, Json]:
    """Refuse options that read a file or send something somewhere: these have parameters of their own, or none."""
    known = catalog.get_model(model).options
    faults = [
        Fault(name, None, f"is no option for `options` of {model}", did_you_mean(name, known))
        for name in options
        if name not in known or known[name].type in CLOSED
    ]
    if faults:
        raise InvalidUsageError("", faults=faults)
    return options
