"""Whole or not at all: bytes reach their final name only when every one of them is on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex

# Of the final name, so that the temporary one is no longer than a folder allows.
SHOWN = 40


def save(data: bytes, path: str | os.PathLike[str]) -> Path:
    """Write a file under a temporary name in the same folder, flush it, rename it, and return its path.

    A crash at any moment leaves the old file or the new one, never half of one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name[:SHOWN]}.{token_hex(8)}.part"
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target
