"""Files of wanted images, read row by row in flat memory: CSV, JSON lines, Parquet, or one prompt a line.

A manifest that cannot be read raises `InvalidUsageError` with the line; what its rows ask for is judged in `row`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fluxwerk.batch import separated, text
from fluxwerk.batch.text import unreadable
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.types import Json

BLOCK = 1024 * 1024
# What pandas calls the column of an index that has no name.
INDEX_PREFIX = "__index_level_"


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One row of a manifest: its line from 1 (of a Parquet file its row), and its columns.

    `variant` counts the rows, from 0, that one line with variables has become.
    """

    number: int
    columns: Mapping[str, Json] = field(repr=False)
    variant: int = 0


Read = Callable[[Path, str | None], Iterator[ManifestLine]]


def read_manifest(path: str | os.PathLike[str], encoding: str | None = None) -> Iterator[ManifestLine]:
    """Go through the rows of a file; its name says what it is: .csv, .tsv, .jsonl, .ndjson, .parquet or .txt.

    `encoding` is that of a text, UTF-8 by default.  Raises `InvalidUsageError` for a file that is missing, of another
    kind, or damaged.
    """
    file = Path(path)
    read = READERS.get(file.suffix.lower())
    if read is None:
        raise InvalidUsageError("", faults=[Fault("manifest", str(file), f"must end in one of {', '.join(READERS)}")])
    if encoding is not None:
        text.check_encoding(encoding)
    try:
        yield from read(file, encoding)
    except OSError as error:
        raise InvalidUsageError(f"The manifest {file} cannot be read: {error.strerror or error}.") from None


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Hash a file's content, block by block: its SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InvalidUsageError(
                "", faults=[Fault("manifest", str(path), "must be a regular file", "it is read twice")]
            )
        with Path(path).open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise InvalidUsageError(f"The manifest {path} cannot be read: {error.strerror}.") from None
    return digest.hexdigest()


def _csv(path: Path, encoding: str | None) -> Iterator[ManifestLine]:
    for number, columns in separated.read_rows(path, None, encoding):
        yield ManifestLine(number, columns)


def _tsv(path: Path, encoding: str | None) -> Iterator[ManifestLine]:
    for number, columns in separated.read_rows(path, "\t", encoding):
        yield ManifestLine(number, columns)


def _jsonl(path: Path, encoding: str | None) -> Iterator[ManifestLine]:
    for number, line in enumerate(text.read_lines(path, encoding), 1):
        if not line.strip():
            continue
        try:
            columns: Json = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise unreadable(path, number, f"this is not JSON: {error}") from None
        if not isinstance(columns, dict):
            raise unreadable(path, number, 'each line must be an object such as {"prompt": "a fox"}')
        found = cast("dict[str, Json]", columns)
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise unreadable(path, number, "holds half a character (a lone surrogate)") from None
        yield _named(path, number, found)


def _text(path: Path, encoding: str | None) -> Iterator[ManifestLine]:
    for number, line in enumerate(text.read_lines(path, encoding), 1):
        if line.strip():
            yield ManifestLine(number, {"prompt": line.strip()})


def _parquet(path: Path, _: str | None) -> Iterator[ManifestLine]:
    from fluxwerk.batch.parquet import read_rows  # noqa: PLC0415  (only Parquet files pay for it)

    for number, columns in enumerate(read_rows(path), 1):
        yield _named(path, number, {n: value for n, value in columns.items() if not n.startswith(INDEX_PREFIX)})


def _named(path: Path, number: int, columns: Mapping[str, Json]) -> ManifestLine:
    """Read names in any case; what is null, or not a number where one is missing, is not there."""
    found: dict[str, Json] = {}
    for name, value in columns.items():
        plain = name.strip().lower()
        if plain in found:
            raise unreadable(path, number, f"the column {plain!r} is there twice")
        # pandas writes a missing number as NaN, which is the only value that differs from itself.
        if value is not None and value == value:  # noqa: PLR0124
            found[plain] = value
    return ManifestLine(number, found)


READERS: Mapping[str, Read] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".txt": _text,
}
