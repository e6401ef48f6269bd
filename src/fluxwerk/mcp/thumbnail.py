"""A small JPEG of an image, for the eyes of an assistant: the whole image stays in its file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from fluxwerk import imagefile

# Characters of base64, which an assistant reads as part of its conversation.
LONGEST_BASE64 = 64_000
SIDES = (384, 256, 128, 64)
THUMBNAIL_QUALITY = 75
# More is not decoded for a thumbnail.
MOST_PIXELS = 100_000_000


def thumbnail(path: Path) -> str | None:
    """Return a JPEG as base64, or `None` for a file that is no image or too large to decode."""
    from PIL import Image  # noqa: PLC0415  (heavy)

    try:
        data = path.read_bytes()
    except OSError:
        return None
    found = imagefile.measure(data)
    if found is None or found.width * found.height > MOST_PIXELS or imagefile.fault(data):
        return None
    with Image.open(io.BytesIO(data)) as opened:
        whole = opened.convert("RGB")
    for side in SIDES:
        small = whole.copy()
        small.thumbnail((side, side))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=THUMBNAIL_QUALITY)
        text = base64.b64encode(file.getvalue()).decode("ascii")
        if len(text) <= LONGEST_BASE64:
            return text
    return None
