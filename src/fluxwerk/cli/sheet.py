"""A contact sheet: small copies of several images on one page, each with the name of its file."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fluxwerk import storage
from fluxwerk.errors import Fault, InvalidUsageError

PILLOW_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
# In pixels: the longest side of a copy, the space around it, and the line below it for the name.
LONGEST_SIDE, MARGIN, LINE = 384, 16, 20


def check_sheet(file: Path) -> None:
    """Check before the submit that a sheet can be written there; raises `InvalidUsageError`."""
    if file.name.startswith("-"):
        raise _refused(file, "must be the name of a file", "for example --sheet foxes.png")
    if file.suffix.lower() not in PILLOW_FORMATS:
        raise _refused(file, "must end in .png, .jpg, .jpeg or .webp", "choose another name")
    if file.exists():
        raise _refused(file, "already exists", "choose another name, or remove the file")
    if not file.absolute().parent.is_dir():
        raise _refused(file, f"the folder {file.parent} does not exist", "create it first")
    if find_spec("PIL") is None:
        raise InvalidUsageError("--sheet needs the package pillow. Install it: pip install 'fluxwerk[images]'")


def write_sheet(file: Path, images: Sequence[tuple[str, bytes]], *, overwrite: bool = False) -> None:
    """Write named images as one page, as square as their number allows."""
    from PIL import Image, ImageDraw  # noqa: PLC0415  (slow to import, and only needed here)

    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    step = LONGEST_SIDE + MARGIN
    page = Image.new("RGB", (columns * step + MARGIN, rows * (step + LINE) + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    for number, (name, data) in enumerate(images):
        left, top = MARGIN + number % columns * step, MARGIN + number // columns * (step + LINE)
        with Image.open(io.BytesIO(data)) as opened:
            opened.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            page.paste(opened.convert("RGB"), (left, top + LONGEST_SIDE - opened.height))
        draw.text((left, top + LONGEST_SIDE + MARGIN // 4), name, fill="black")
    written = io.BytesIO()
    page.save(written, PILLOW_FORMATS[file.suffix.lower()])
    storage.save(written.getvalue(), file, overwrite=overwrite)


def _refused(file: Path, allowed: str, hint: str) -> InvalidUsageError:
    return InvalidUsageError("", faults=[Fault("--sheet", str(file), allowed, hint)])
