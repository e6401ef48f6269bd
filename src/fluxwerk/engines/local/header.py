"""The headers of weight files: names, formats and shapes of their tensors, read without loading any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

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
    if file.is_dir():
        hint = "give one .safetensors or .gguf file; a folder of diffusers can be served as it is"
        raise InvalidUsageError("", faults=[Fault("file", str(file), "is a folder", hint)])
    if not file.is_file():
        raise InvalidUsageError(
            "", faults=[Fault("file", str(file), "does not exist", "give a .safetensors or .gguf file")]
        )
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
    try:
        entries = {name: _entry(entry) for name, entry in table.items() if name != "__metadata__"}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _refused(file, "is not a safetensors file", "download it again") from None
    last = max((end for _, end in entries.values()), default=0)
    if 8 + length + last > held:
        raise _refused(file, f"is cut off: it needs {8 + length + last:,} bytes and has {held:,}", "download it again")
    return {name: entry for name, (entry, _) in entries.items()}


def _entry(table: Any) -> tuple[TensorEntry, int]:
    """Return a tensor, and where it ends."""
    start, end = (int(offset) for offset in table["data_offsets"])
    return TensorEntry(str(table["dtype"]), tuple(int(side) for side in table["shape"]), end - start), end


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
