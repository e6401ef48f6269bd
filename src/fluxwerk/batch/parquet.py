"""Parquet tables in and out, a few thousand rows at a time; needs the extra `parquet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.storage import writing
from fluxwerk.types import Json

CHUNK_ROWS = 4096
WHOLE_COLUMNS = frozenset({"job", "line", "item", "seed"})
FRACTION_COLUMNS = frozenset({"cost", "seconds"})


def read_rows(path: Path) -> Iterator[dict[str, Json]]:
    """Go through the rows of a file; raises `InvalidUsageError` if it is not a whole Parquet file."""
    library = _load(path)
    try:
        for batch in library.parquet.ParquetFile(path).iter_batches(batch_size=CHUNK_ROWS):
            yield from batch.to_pylist()
    except library.ArrowException as error:
        raise InvalidUsageError(
            "", faults=[Fault("manifest", str(path), f"is not a whole Parquet file: {error}")]
        ) from None


def write_rows(path: Path, rows: Iterator[dict[str, Json]], names: Sequence[str]) -> int:
    """Write rows to a file, whole or not at all, and return how many there were."""
    library = _load(path)
    shape = library.schema([(name, _kind(library, name)) for name in names])
    count = 0
    with writing(path) as file, library.parquet.ParquetWriter(file, shape) as writer:
        for chunk in _chunks(rows):
            writer.write_table(library.Table.from_pylist(chunk, schema=shape))
            count += len(chunk)
    return count


def _kind(library: Any, name: str) -> Any:
    if name in WHOLE_COLUMNS:
        return library.int64()
    return library.float64() if name in FRACTION_COLUMNS else library.string()


def _chunks(rows: Iterator[dict[str, Json]]) -> Iterator[list[dict[str, Json]]]:
    chunk: list[dict[str, Json]] = []
    for row in rows:
        cost = row.get("cost")
        chunk.append({**row, "cost": None if cost is None else float(cost)})
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
    yield chunk


def _load(path: Path) -> Any:
    # Loaded by name, since the library has no types for a checker to read.
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ModuleNotFoundError:
        raise InvalidUsageError(f"{path} needs one more package: pip install 'fluxwerk[parquet]'") from None
