"""Files of wanted images, read row by row in flat memory: CSV, JSON lines, Parquet, or one prompt a line.

A manifest that cannot be read raises `InvalidUsageError` with the line; what its rows ask for is judged in `row`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.types import Json

BLOCK = 1024 * 1024
# No model reads a longer prompt; the csv module stops at the same length.
LONGEST_FIELD = 131_072


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One row of a manifest as it was written: its line from 1 (of a Parquet file its row), and its columns."""

    number: int
    columns: Mapping[str, Json] = field(repr=False)


Read = Callable[[Path], Iterator[ManifestLine]]


def read_manifest(path: str | os.PathLike[str]) -> Iterator[ManifestLine]:
    """Go through the rows of a file; its name says what it is: .csv, .tsv, .jsonl, .ndjson, .parquet or .txt.

    Raises `InvalidUsageError` for a file that is missing, of another kind, or damaged.
    """
    file = Path(path)
    read = READERS.get(file.suffix.lower())
    if read is None:
        raise InvalidUsageError("", faults=[Fault("manifest", str(file), f"must end in one of {', '.join(READERS)}")])
    try:
        yield from read(file)
    except OSError as trouble:
        raise InvalidUsageError(f"The manifest {file} cannot be read: {trouble.strerror or trouble}.") from None


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Hash a file's content, block by block: its SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as trouble:
        raise InvalidUsageError(f"The manifest {path} cannot be read: {trouble.strerror}.") from None
    return digest.hexdigest()


def _csv(path: Path) -> Iterator[ManifestLine]:
    return _separated(path, ",")


def _tsv(path: Path) -> Iterator[ManifestLine]:
    return _separated(path, "\t")


def _separated(path: Path, delimiter: str) -> Iterator[ManifestLine]:
    # utf-8-sig drops the mark that Excel writes first; newline="" leaves line ends to the csv module.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_decoded(file, path), delimiter=delimiter, strict=True)
        names: list[str] = []
        number = 1
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as trouble:
                raise _unreadable(path, number, _in_words(trouble)) from None
            if cells is None:
                break
            if names and any(cells):
                yield _row(path, number, names, cells)
            elif any(cells):
                names = _header(path, cells)
            number = reader.line_num + 1
        if not names:
            raise _unreadable(path, 1, "the file is empty; its first line must name the columns, such as prompt,model")


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise _unreadable(path, 1, f"the column {min(twice)!r} is there twice")
    if "prompt" not in names and len(names) == 1:
        raise _unreadable(path, 1, f"the first line must name the columns, such as prompt,model; it is {cells[0]!r}")
    return names


def _row(path: Path, number: int, names: list[str], cells: list[str]) -> ManifestLine:
    if len(cells) > len(names):
        raise _unreadable(path, number, f"there are {len(cells)} values for {len(names)} columns; quote commas")
    return ManifestLine(number, {name: cell for name, cell in zip(names, cells, strict=False) if cell != ""})


def _in_words(trouble: csv.Error) -> str:
    said = str(trouble)
    if "field larger" in said:
        return f"a value is longer than {LONGEST_FIELD} characters, which no model reads; is a quote missing?"
    return f"the quotes do not fit ({said}); write a quote inside quotes twice"


def _jsonl(path: Path) -> Iterator[ManifestLine]:
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(_decoded(file, path), 1):
            if not text.strip():
                continue
            try:
                columns: Json = json.loads(text)
            except (ValueError, RecursionError) as trouble:
                raise _unreadable(path, number, f"this is not JSON: {trouble}") from None
            if not isinstance(columns, dict):
                raise _unreadable(path, number, 'each line must be an object such as {"prompt": "a fox"}')
            found = cast("dict[str, Json]", columns)
            try:
                json.dumps(found, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise _unreadable(path, number, "holds half a character (a lone surrogate)") from None
            yield ManifestLine(number, {name: value for name, value in found.items() if value is not None})


def _text(path: Path) -> Iterator[ManifestLine]:
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(_decoded(file, path), 1):
            if text.strip():
                yield ManifestLine(number, {"prompt": text.strip()})


def _parquet(path: Path) -> Iterator[ManifestLine]:
    from fluxwerk.batch.parquet import read_rows  # noqa: PLC0415  (only Parquet files pay for it)

    for number, columns in enumerate(read_rows(path), 1):
        yield ManifestLine(number, {name: value for name, value in columns.items() if value is not None})


READERS: Mapping[str, Read] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".txt": _text,
}


def _decoded(file: IO[str], path: Path) -> Iterator[str]:
    number = 0
    try:
        for number, text in enumerate(file, 1):  # noqa: B007  (the last good line is told)
            yield text
    except UnicodeDecodeError as trouble:
        reason = f"byte {trouble.object[trouble.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise _unreadable(path, number + 1, reason) from None


def _unreadable(path: Path, number: int, reason: str) -> InvalidUsageError:
    return InvalidUsageError("", faults=[Fault(f"{path.name}, line {number}", None, reason)])
