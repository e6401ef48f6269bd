"""Untrusted image files into pixels, and pixels into image files.

Pillow is imported where it is used, so that a process that decodes nothing does not load it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from fluxwerk.imagefile import TURNS, Raster, measure

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 20_000_000
# The EXIF (TIFF) tags that a viewer shows as description and software.
DESCRIPTION, SOFTWARE = 0x010E, 0x0131


def decode(data: bytes, largest: int = LARGEST) -> Image.Image:
    """Return the upright first frame as RGB, or as RGBA if anything in it can be transparent.

    Raises `ValueError` when this is not a whole PNG, JPEG or WebP, or has more than `largest` pixels.
    """
    raster = measure(data)
    if raster is None:
        raise ValueError("The image is neither PNG, JPEG nor WebP.")
    if raster.width < 1 or raster.height < 1:
        raise ValueError("The image has no pixels.")
    if raster.width * raster.height > largest:
        raise ValueError(f"The image has {raster.width} x {raster.height} pixels; at most {largest} are decoded.")
    try:
        return _upright(data, raster)
    except Exception as error:
        # Decoders of foreign bytes raise nearly anything; their sender needs one sentence.
        raise ValueError(f"The image cannot be decoded: {error}") from error


def encode(image: Image.Image, output_format: str, software: str = "", description: str = "") -> bytes:
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
            image.save(file, "PNG", compress_level=1, pnginfo=notes)
        case "jpeg":
            image.convert("RGB").save(file, "JPEG", quality=90, exif=exif)
        case "webp":
            image.save(file, "WEBP", quality=90, method=0, exif=exif)
        case _:
            raise ValueError(f"No image can be written as {output_format!r}; use png, jpeg or webp.")
    return file.getvalue()


def _upright(data: bytes, raster: Raster) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - heavy

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
        # Stands in for making DecompressionBombWarning an error, whose filter would be shared by all threads.
        if opened.size != raster.size:
            raise ValueError("it has another size than its header says.")
        opened.load()
        # Read where the size is: a mask is compared with the upright image before either is opened.
        turn = TURNS.get(raster.orientation)
        image = opened.copy() if turn is None else opened.transpose(Image.Transpose[turn])
    if image.mode.startswith("I"):
        high_bytes = [level // 256 for level in range(65536)]
        image = image.convert("I").point(high_bytes, "L")  # pyright: ignore[reportUnknownMemberType]
    mode = "RGBA" if image.has_transparency_data else "RGB"
    # Converting to what it is already would copy it, and twenty megapixels are eighty megabytes.
    return image if image.mode == mode else image.convert(mode)
