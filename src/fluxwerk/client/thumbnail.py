"""Small copies of images, for pages that show many of them."""

from __future__ import annotations

import io
from importlib.util import find_spec

from fluxwerk import imagefile

QUALITY_OF_COPY = 80
# An image that claims more is not decoded; the largest that any model makes has sixteen megapixels.
MOST_PIXELS_OF_COPY = 64_000_000


def thumbnail(data: bytes, side: int) -> bytes:
    """Make a small upright JPEG, measured before it is decoded; empty for what is no image, and without Pillow."""
    found = imagefile.measure(data)
    if found is None or found.width * found.height > MOST_PIXELS_OF_COPY or find_spec("PIL") is None:
        return b""
    from PIL import Image, ImageOps  # noqa: PLC0415  (slow to import, and only needed here)

    try:
        with Image.open(io.BytesIO(data)) as opened:
            small = ImageOps.exif_transpose(opened)
            small.thumbnail((side, side))
            written = io.BytesIO()
            small.convert("RGB").save(written, "JPEG", quality=QUALITY_OF_COPY)
    except (OSError, ValueError, SyntaxError):
        return b""
    return written.getvalue()
