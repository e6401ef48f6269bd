"""Manifests with variables: each row that names some becomes a row for every combination of their values."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from fluxwerk.batch.manifest import ManifestLine, read_manifest
from fluxwerk.batch.separated import read_rows
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.prompt.variables import combine, fill_in, variables_of
from fluxwerk.types import Json

Values: TypeAlias = "str | os.PathLike[str] | Sequence[Mapping[str, Json]]"
MOST_COMBINATIONS = 100_000
# One variable with its values, such as colour=red,blue.
NAMED = re.compile(r"\s*(?P<name>\w[\w -]*?)\s*=(?P<values>.*)", re.DOTALL)
# The separator of a table of text by the name of its file; `None` is read from its header.
SEPARATED: Mapping[str, str | None] = {".csv": None, ".tsv": "\t"}


class Expansion:
    """The tables of values: a file each, a list of rows, or one variable as a text such as `colour=red,blue`.

    The rows of one table belong together; several tables give their cartesian product.
    """

    def __init__(self, variables: Iterable[Values] = (), encoding: str | None = None) -> None:
        self._tables = [_table(source, encoding) for source in variables]
        names = [name for table in self._tables for name in table[0]]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidUsageError("", faults=[Fault("--vars", ", ".join(twice), "must be in one of the tables only")])
        self._names = frozenset(names)

    def sign(self, sha256: str) -> str:
        """Return the fingerprint of a manifest with these tables; without tables it is the manifest's own."""
        if not self._tables:
            return sha256
        return hashlib.sha256(f"{sha256}{self._tables!r}".encode("utf-8", "surrogatepass")).hexdigest()

    def expand(self, lines: Iterable[ManifestLine]) -> Iterator[ManifestLine]:
        """Yield every row as often as its variables have values; raises `InvalidUsageError` with the line."""
        if not self._tables:
            yield from lines
            return
        for line in lines:
            yield from self._expanded(line)

    def _expanded(self, line: ManifestLine) -> Iterator[ManifestLine]:
        wanted = {name for value in line.columns.values() if isinstance(value, str) for name in variables_of(value)}
        unknown = sorted(wanted - self._names)
        if unknown:
            text = "".join(f"{{{{{name}}}}}" for name in unknown)
            faults = [
                Fault(f"line {line.number}", text, f"has no column in the tables; they have {_list(self._names)}")
            ]
            raise InvalidUsageError("A row has a variable without values:", faults=faults)
        tables = [_distinct(table, wanted) for table in self._tables if wanted & table[0].keys()]
        count = 1
        for table in tables:
            count *= len(table)
        if count > MOST_COMBINATIONS:
            faults = [
                Fault(f"line {line.number}", count, f"must have at most {MOST_COMBINATIONS} combinations of values")
            ]
            raise InvalidUsageError("A row becomes too many:", faults=faults)
        for number, values in enumerate(combine(*tables)):
            columns = {name: fill_in(value, values) if isinstance(value, str) else value
                       for name, value in line.columns.items()}  # fmt: skip
            yield replace(line, columns=columns, variant=number)


def _table(source: Values, encoding: str | None) -> list[dict[str, str]]:
    rows: Iterable[Mapping[str, Json]]
    if isinstance(source, str) and (named := NAMED.fullmatch(source)):
        rows = [{named["name"]: value.strip()} for value in named["values"].split(",")]
    elif isinstance(source, str | os.PathLike):
        rows = _read(Path(source), encoding)
    else:
        rows = source
    table = [{name.strip().lower(): str(value) for name, value in row.items()} for row in rows]
    names = {name for row in table for name in row}
    if not names:
        raise InvalidUsageError("", faults=[Fault("--vars", str(source), "holds no rows")])
    gaps = [number for number, row in enumerate(table, 1) if names - row.keys()]
    if gaps:
        missing = _list(names - table[gaps[0] - 1].keys())
        raise InvalidUsageError("", faults=[Fault("--vars", str(source), f"row {gaps[0]} has no value for {missing}")])
    return table


def _read(file: Path, encoding: str | None) -> Iterator[Mapping[str, Json]]:
    separator = SEPARATED.get(file.suffix.lower(), "")
    if separator == "":
        yield from (line.columns for line in read_manifest(file, encoding))
        return
    try:
        yield from (row for _, row in read_rows(file, separator, encoding, lone=True))
    except OSError as error:
        raise InvalidUsageError(f"The table {file} cannot be read: {error.strerror or error}.") from None


def _distinct(table: list[dict[str, str]], wanted: set[str]) -> list[dict[str, str]]:
    """Return each combination of the columns that a row names once: another column must not repeat the image."""
    rows = [{name: value for name, value in row.items() if name in wanted} for row in table]
    return [dict(row) for row in dict.fromkeys(tuple(row.items()) for row in rows)]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
