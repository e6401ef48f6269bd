"""Whole or not at all: bytes reach their final name only when every one of them is on the disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def save(data: bytes, path: str | os.PathLike[str]) -> Path:
    """Write a file under a temporary name in the same folder, flush it, rename it, and return its path.

    A crash at any moment leaves the old file or the new one, never half of one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target


def _umask() -> int:
    # There is no way to read it without setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
