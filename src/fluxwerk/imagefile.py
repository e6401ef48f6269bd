"""What image bytes say about themselves: type, size, orientation, and whether they are all there.

Pure Python over file headers, so that an image is measured before anything decodes it.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SUFFIX = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
# Chunks or segments that are read of one file. Real encoders write a few thousand into 20 MB; a file made of millions
# of empty ones would otherwise hold the reader for seconds.
MOST_PARTS = 20_000
DAMAGED = "it is cut off or damaged"
CROWDED = f"it has more than {MOST_PARTS} chunks or segments"
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_SCAN = 0xDA
JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
JPEG_APP1 = 0xE1
EXIF = b"Exif\0\0"
ORIENTATION = 0x0112
SIDEWAYS = range(5, 9)
# The move, by Pillow's name, that sets each orientation upright.
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
WEBP_HEADERS = {b"VP8X": 30, b"VP8L": 25, b"VP8 ": 30}
SIGNATURES = (
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
)
# The brands in the first box of an ISO media file (ISO/IEC 14496-12, HEIF and AVIF).
BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"crx ": "camera raw",
    b"isom": "MP4 video",
    b"mp42": "MP4 video",
} | dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC")
BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
WHITE_SPACE = b" \t\n\r\v\f"
DATA_URI = "data:"
# No media type with its parameters is longer; what follows is not searched for the comma.
LONGEST_DATA_URI_HEAD = 256


@dataclass(frozen=True, slots=True)
class Raster:
    """The type and the stored size in pixels that an image file claims, and the EXIF orientation, 1 to 8."""

    content_type: str
    width: int
    height: int
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as they are stored."""
        return self.width, self.height

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height in pixels as a viewer shows them, after the EXIF orientation."""
        return (self.height, self.width) if self.orientation in SIDEWAYS else self.size


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
    """Read type, size and orientation without decoding, or return `None` if this is not a PNG, JPEG or WebP."""
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


def format_name(data: bytes) -> str | None:
    """Name the format of an image that is not a PNG, JPEG or WebP, as far as its first bytes tell."""
    known = next((name for signature, name in SIGNATURES if data.startswith(signature)), None)
    if known:
        return known
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if data[4:8] == b"ftyp":
        end = min(int.from_bytes(data[:4], "big"), 256)
        # Many AVIF and HEIC files have the general brand mif1 first and the exact one in the list behind.
        brands = [data[at : at + 4] for at in (8, *range(16, end, 4))]
        names = [BRANDS[brand] for brand in brands if brand in BRANDS]
        return "AVIF" if "AVIF" in names else names[0] if names else None
    return None


def may_be_transparent(data: bytes) -> bool:
    """Whether the header of a whole PNG, JPEG or WebP announces transparency; its pixels may all be opaque."""
    if data.startswith(PNG_SIGNATURE):
        # Colour types 4 and 6 have an alpha channel; a palette or a single colour is transparent by tRNS.
        return data[25] in (4, 6) or any(kind == b"tRNS" for kind, _, _ in _png_chunks(data))
    if data[12:16] == b"VP8X":
        return bool(data[20] & 0x10)
    return data[12:16] == b"VP8L" and bool(data[24] & 0x10)


def fault(data: bytes) -> str | None:
    """Say what keeps these bytes from being a whole image, or return `None` when nothing does.

    A PNG is checked to its last checksum; a JPEG and a WebP to their end, since they carry no checksums.
    """
    if not data:
        return "it is empty"
    raster = measure(data)
    if raster is None:
        head = data[:64].lstrip().lower()
        if head.startswith((b"<!doctype", b"<html")):
            return "it is a web page, not an image"
        name = format_name(data)
        return f"its format is {name}" if name else "it is not an image"
    if raster.width < 1 or raster.height < 1:
        return "it has no pixels"
    return {"image/png": _png_fault, "image/jpeg": _jpeg_fault, "image/webp": _webp_fault}[raster.content_type](data)


def _png(data: bytes) -> Raster | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return Raster("image/png", width, height, _read_orientation(data, _png_exif))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk's payload; its checksum of four bytes follows."""
    at = len(PNG_SIGNATURE)
    for _ in range(MOST_PARTS):
        if at + 12 > len(data):
            return
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment's payload, up to the first scan."""
    at = 2
    for _ in range(MOST_PARTS):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:
            # A fill byte.
            at += 1
            continue
        at += 2
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
            return Raster("image/jpeg", width, height, _read_orientation(data, _jpeg_exif))
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
    return Raster("image/webp", width, height, _read_orientation(data, _webp_exif))


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk's payload."""
    at = 12
    for _ in range(MOST_PARTS):
        if at + 8 > len(data):
            return
        (length,) = struct.unpack("<I", data[at + 4 : at + 8])
        yield data[at : at + 4], at + 8, at + 8 + length
        at += 8 + length + length % 2


def _png_fault(data: bytes) -> str | None:
    count = 0
    for count, (kind, start, end) in enumerate(_png_chunks(data), 1):  # noqa: B007  (read after the loop)
        checksum = data[end : end + 4]
        if len(checksum) < 4 or zlib.crc32(memoryview(data)[start - 4 : end]) != int.from_bytes(checksum, "big"):
            return DAMAGED
        if kind == b"IEND":
            return None
    return CROWDED if count == MOST_PARTS else DAMAGED


def _jpeg_fault(data: bytes) -> str | None:
    # A thumbnail has an end marker of its own before the scan, and a phone may put a film behind the image's.
    try:
        scan = next(end for marker, _, end in _jpeg_segments(data) if marker == JPEG_SCAN)
    except (IndexError, StopIteration, struct.error):
        return DAMAGED
    return None if data.find(b"\xff\xd9", scan) > 0 else DAMAGED


def _webp_fault(data: bytes) -> str | None:
    if len(data) < int.from_bytes(data[4:8], "little") + 8:
        return DAMAGED
    return CROWDED if sum(1 for _ in _webp_chunks(data)) == MOST_PARTS else None


def _read_orientation(data: bytes, find_exif: Callable[[bytes], bytes]) -> int:
    try:
        orientation = _orientation(find_exif(data).removeprefix(EXIF))
    except (IndexError, struct.error):
        # A camera's broken EXIF is not a reason to doubt its photograph.
        return 1
    return orientation if orientation in range(1, 9) else 1


def _jpeg_exif(data: bytes) -> bytes:
    for marker, start, end in _jpeg_segments(data):
        if marker == JPEG_APP1 and data.startswith(EXIF, start):
            return data[start:end]
    return b""


def _png_exif(data: bytes) -> bytes:
    return next((data[start:end] for kind, start, end in _png_chunks(data) if kind == b"eXIf"), b"")


def _webp_exif(data: bytes) -> bytes:
    return next((data[start:end] for kind, start, end in _webp_chunks(data) if kind == b"EXIF"), b"")


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
