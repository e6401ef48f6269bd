"""Thumbnails: small copies of the images, made when they are first looked at, and kept in bounded memory."""

from __future__ import annotations

import io
from collections import OrderedDict
from threading import Lock

from fluxwerk.engines.codec import decode

# The longer side, in pixels: sharp at 320 points on the screens of most telephones.
THUMBNAIL_SIDE = 640
KEPT_BYTES = 64 * 1024 * 1024
LARGEST_ORIGINAL = 80_000_000


class Thumbnails:
    """Makes thumbnails and keeps the ones that were used last; safe to use from many threads."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._held = 0
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def find(self, name: str) -> bytes | None:
        """Return what was made for a name, if it is kept."""
        with self._lock:
            found = self._made.get(name)
            if found is not None:
                self._made.move_to_end(name)
            return found

    def make(self, name: str, image: bytes) -> bytes:
        """Return the thumbnail of an image as WebP; raises `ValueError` if it cannot be decoded."""
        made = shrink(image)
        with self._lock:
            self._held += len(made) - len(self._made.pop(name, b""))
            self._made[name] = made
            while self._held > self._most and self._made:
                self._held -= len(self._made.popitem(last=False)[1])
        return made


def shrink(image: bytes, side: int = THUMBNAIL_SIDE) -> bytes:
    """Return a copy of at most `side` pixels a side, as WebP."""
    picture = decode(image, LARGEST_ORIGINAL)
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=82, method=2)
    return file.getvalue()
