"""The headers of weight files: names, formats and shapes of their tensors, read without loading any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, TypeAlias, cast

from fluxwerk.errors import Fault, InvalidUsageError

# The limit of the safetensors format.
LONGEST_HEADER = 100_000_000
SUFFIXES = (".safetensors", ".sft", ".gguf")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its number format as the file names it, its shape, and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def count(self) -> int:
        """The number of values."""
        return prod(self.shape)


Header: TypeAlias = Mapping[str, TensorEntry]


def read_header(file: Path) -> Header:
    """Return the tensors of a .safetensors or .gguf file; raises `InvalidUsageError` if it is neither or is cut off."""
    if not file.is_file():
        raise _refused(file, "does not exist", "give a .safetensors or .gguf file")
    if file.suffix not in SUFFIXES:
        raise _refused(file, "is not a weight file", "give a .safetensors or .gguf file; pickles are not opened")
    return _gguf(file) if file.suffix == ".gguf" else _safetensors(file)


def read_folder(folder: Path) -> Header:
    """Return the tensors of all safetensors of a folder."""
    found: dict[str, TensorEntry] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= read_header(file)
    return found


def _safetensors(file: Path) -> Header:
    held = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= min(LONGEST_HEADER, held):
            raise _refused(file, "is not a safetensors file", "download it again")
        try:
            table: Any = json.loads(stream.read(length))
        except ValueError:
            raise _refused(file, "is not a safetensors file", "download it again") from None
    if not isinstance(table, dict):
        raise _refused(file, "is not a safetensors file", "download it again")
    found: dict[str, TensorEntry] = {}
    last = 0
    for name, entry in cast("dict[str, Any]", table).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        found[name] = TensorEntry(entry["dtype"], tuple(entry["shape"]), end - start)
        last = max(last, end)
    if 8 + length + last > held:
        raise _refused(file, f"is cut off: it needs {8 + length + last:,} bytes and has {held:,}", "download it again")
    return found


def _gguf(file: Path) -> Header:
    try:
        reader: Any = import_module("gguf").GGUFReader(str(file))
    except ModuleNotFoundError:
        raise InvalidUsageError("GGUF files need the package gguf. Run pip install 'fluxwerk[diffusers]'.") from None
    except (ValueError, IndexError, OSError) as fault:
        raise _refused(file, f"is not a whole GGUF file: {fault}", "download it again") from None
    # GGUF names the fastest dimension first.
    return {
        tensor.name: TensorEntry(
            tensor.tensor_type.name, tuple(int(side) for side in reversed(tensor.shape)), int(tensor.n_bytes)
        )
        for tensor in reader.tensors
    }


def _refused(file: Path, why: str, hint: str) -> InvalidUsageError:
    return InvalidUsageError("", faults=[Fault("file", file.name, why, hint)])
