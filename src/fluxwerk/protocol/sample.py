"""What `result.sample` of a ready task holds: a link, or the image itself as text."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from fluxwerk import imagefile


def read_inline_image(sample: str) -> bytes | None:
    """Decode an image that stands in the result itself, as a data URI or bare base64; `None` for a link.

    What a data URI holds is returned as it is, even if it is not an image; bare base64 has to be one.
    """
    head, _, text = sample.partition(",")
    if head[:5].lower() != "data:":
        data = None if "://" in sample[:16] else _decode(sample)
        return data if data and imagefile.measure(data) else None
    if head.lower().endswith(";base64"):
        return _decode(text) or b""
    return unquote_to_bytes(text)


def _decode(text: str) -> bytes | None:
    packed = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None
