"""Foreign image files into pixels, safely, and pixels into image files.

Pillow is imported where it is used, so that a process that decodes nothing does not load it.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

from fluxwerk.imagefile import measure

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 20_000_000
ORIENTATION_FAULTS = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error)
# The EXIF (TIFF) tags that a viewer shows as description and software.
DESCRIPTION, SOFTWARE = 0x010E, 0x0131


def decode(data: bytes, largest: int = LARGEST) -> Image.Image:
    """Return the upright first frame as RGB, or as RGBA if anything in it can be transparent.

    Raises `ValueError` when this is no whole PNG, JPEG or WebP, or has more than `largest` pixels.
    """
    raster = measure(data)
    if raster is None:
        raise ValueError("The image is neither PNG, JPEG nor WebP.")
    if raster.width < 1 or raster.height < 1:
        raise ValueError("The image has no pixels.")
    if raster.width * raster.height > largest:
        raise ValueError(f"The image has {raster.width} x {raster.height} pixels; at most {largest} are decoded.")
    try:
        return _upright(data, raster.size)
    except Exception as error:
        # Decoders of foreign bytes raise nearly anything; whoever sent them needs one sentence.
        raise ValueError(f"The image cannot be decoded: {error}") from error


def encode(picture: Image.Image, output_format: str, software: str = "", description: str = "") -> bytes:
    """Return the image file, fast rather than small, saying in its metadata what made it."""
    from PIL import Image, PngImagePlugin  # noqa: PLC0415 - heavy

    exif = Image.Exif()
    exif[SOFTWARE], exif[DESCRIPTION] = software, description
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", software)
    notes.add_text("Description", description)
    file = io.BytesIO()
    match output_format:
        case "png":
            picture.save(file, "PNG", compress_level=1, pnginfo=notes)
        case "jpeg":
            picture.convert("RGB").save(file, "JPEG", quality=90, exif=exif)
        case "webp":
            picture.save(file, "WEBP", quality=90, method=0, exif=exif)
        case _:
            raise ValueError(f"No image file can be written as {output_format!r}; use png, jpeg or webp.")
    return file.getvalue()


def _upright(data: bytes, size: tuple[int, int]) -> Image.Image:
    from PIL import Image, ImageOps  # noqa: PLC0415 - heavy

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
        # Stands in for making DecompressionBombWarning an error, whose filter would be shared by all threads.
        if opened.size != size:
            raise ValueError("it has another size than its header says.")
        opened.load()
        try:
            picture = ImageOps.exif_transpose(opened)
        except ORIENTATION_FAULTS:
            # A camera's broken EXIF is no reason to refuse its photograph.
            picture = opened.copy()
    if picture.mode.startswith("I"):
        high_bytes = [level // 256 for level in range(65536)]
        picture = picture.convert("I").point(high_bytes, "L")  # pyright: ignore[reportUnknownMemberType]
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    # Converting to what it is already would copy it, and twenty megapixels are eighty megabytes.
    return picture if picture.mode == mode else picture.convert(mode)
