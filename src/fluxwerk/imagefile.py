"""What image bytes say about themselves: type, size, and whether they are all there.

Pure Python over PNG, JPEG and WebP headers, so that an image is measured before anything decodes it.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SUFFIX = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_SCAN = 0xDA
JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
JPEG_APP1 = 0xE1
EXIF = b"Exif\0\0"
ORIENTATION = 0x0112
LYING = range(5, 9)
WEBP_HEADERS = {b"VP8X": 30, b"VP8L": 25, b"VP8 ": 30}
WHITE_SPACE = b" \t\n\r\v\f"
DATA_URI = "data:"
# No media type with its parameters is longer; what follows is not searched for the comma.
LONGEST_DATA_URI_HEAD = 256


@dataclass(frozen=True, slots=True)
class Raster:
    """The type and the size in pixels that an image file claims."""

    content_type: str
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height


def is_data_uri(text: str) -> bool:
    """Whether a text starts as a data URI does, in any case and behind white space."""
    return text.lstrip()[: len(DATA_URI)].lower() == DATA_URI


def read_base64(text: str) -> bytes:
    """Decode base64 or a base64 data URI; white space around it, and the line breaks of many tools, are left out.

    Raises `ValueError` with a sentence that says what is wrong, and never with the text.
    """
    if is_data_uri(text):
        text = text.lstrip()
        head, comma, rest = text[:LONGEST_DATA_URI_HEAD].partition(",")
        if not comma or not "".join(head.lower().split()).endswith(";base64"):
            raise ValueError("a data URI must be base64: data:image/png;base64,…")
        text = rest + text[LONGEST_DATA_URI_HEAD:]
    try:
        return base64.b64decode(text.encode("ascii").translate(None, WHITE_SPACE), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("the text is not base64") from None


def measure(data: bytes) -> Raster | None:
    """Read type and size from the header alone, or `None` if this is no PNG, JPEG or WebP."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except (IndexError, struct.error):
        return None
    return None


def upright(data: bytes) -> tuple[int, int] | None:
    """Read the size as a viewer shows it: EXIF may say that the picture lies on its side."""
    found = measure(data)
    if found is None:
        return None
    exif = {"image/png": _png_exif, "image/jpeg": _jpeg_exif, "image/webp": _webp_exif}[found.content_type]
    try:
        lies = _orientation(exif(data).removeprefix(EXIF)) in LYING
    except (IndexError, struct.error):
        # A camera's broken EXIF is no reason to doubt its photograph.
        lies = False
    return (found.height, found.width) if lies else found.size


def fault(data: bytes) -> str | None:
    """Say what keeps these bytes from being a whole image, or `None` when nothing does.

    A PNG is checked to its last checksum; a JPEG and a WebP to their end, since they carry no checksums.
    """
    if not data:
        return "it is empty"
    raster = measure(data)
    if raster is None:
        head = data[:64].lstrip().lower()
        return "it is a web page, not an image" if head.startswith((b"<!doctype", b"<html")) else "it is no image"
    if raster.width < 1 or raster.height < 1:
        return "it has no pixels"
    whole = {"image/png": _png_is_whole, "image/jpeg": _jpeg_is_whole, "image/webp": _webp_is_whole}
    return None if whole[raster.content_type](data) else "it is cut off or damaged"


def _png(data: bytes) -> Raster | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return Raster("image/png", width, height)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment's payload, up to the first scan."""
    at = 2
    while True:
        if data[at] != 0xFF:
            return
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in JPEG_BARE:
            continue
        (length,) = struct.unpack(">H", data[at : at + 2])
        yield marker, at + 2, at + length
        if marker == JPEG_SCAN:
            return
        at += length


def _jpeg(data: bytes) -> Raster | None:
    for marker, start, _ in _jpeg_segments(data):
        if marker in JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[start + 1 : start + 5])
            return Raster("image/jpeg", width, height)
    return None


def _webp(data: bytes) -> Raster | None:
    kind = data[12:16]
    if len(data) < WEBP_HEADERS.get(kind, 0):
        return None
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", data[26:30]))
    else:
        return None
    return Raster("image/webp", width, height)


def _png_is_whole(data: bytes) -> bool:
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 12 + length
        if end > len(data):
            return False
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end
    return False


def _jpeg_is_whole(data: bytes) -> bool:
    # A thumbnail has an end marker of its own before the scan, and a phone may put a film behind the picture's.
    try:
        scan = next(end for marker, _, end in _jpeg_segments(data) if marker == JPEG_SCAN)
    except (IndexError, StopIteration, struct.error):
        return False
    return data.find(b"\xff\xd9", scan) > 0


def _webp_is_whole(data: bytes) -> bool:
    return len(data) >= int.from_bytes(data[4:8], "little") + 8


def _jpeg_exif(data: bytes) -> bytes:
    for marker, start, end in _jpeg_segments(data):
        if marker == JPEG_APP1 and data.startswith(EXIF, start):
            return data[start:end]
    return b""


def _png_exif(data: bytes) -> bytes:
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _webp_exif(data: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        (length,) = struct.unpack("<I", data[at + 4 : at + 8])
        if data[at : at + 4] == b"EXIF":
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""


def _orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    (at,) = struct.unpack(order + "I", tiff[4:8])
    (count,) = struct.unpack(order + "H", tiff[at : at + 2])
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        (tag,) = struct.unpack(order + "H", tiff[entry : entry + 2])
        if tag == ORIENTATION:
            return int(struct.unpack(order + "H", tiff[entry + 8 : entry + 10])[0])
    return 1
