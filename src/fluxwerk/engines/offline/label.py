"""The label in a corner that says that FLUX did not make the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from fluxwerk.engines.offline.brush import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXTS = (
    "fluxwerk offline rendering - not FLUX",
    "offline rendering, not FLUX",
    "offline, not FLUX",
    "OFFLINE",
)
# From this side on the letters of the bitmap font are drawn twice as large, and so on.
DOUBLED_FROM = 384
WHITE = 255


def write(image: Image.Image, free: Image.Image | None = None) -> None:
    """Draw the longest text that fits into a corner, entirely within the white of `free` if that is given."""
    scale = max(1, min(image.size) // DOUBLED_FROM)
    for text in TEXTS:
        for size in range(scale, 0, -1):
            plate, mask = _plate(text, size)
            for corner in _places(image, free, plate.size, 4 * size):
                image.paste(plate, corner, mask)
                return


def letters(text: str, scale: int) -> Image.Image:
    """Return the text as a mask in a bitmap font, whose pixels no font library changes."""
    font = ImageFont.load_default_imagefont()
    _, _, width, height = font.getbbox(text)
    mask = Image.new("L", (int(width), int(height)))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return nearest(mask, (mask.width * scale, mask.height * scale))


def _plate(text: str, scale: int) -> tuple[Image.Image, Image.Image]:
    """Return light letters on dark, and how much of them covers what is below."""
    words = letters(text, scale)
    edge = (words.width + 10 * scale, words.height + 4 * scale)
    opacity = Image.new("L", edge)
    ImageDraw.Draw(opacity).rounded_rectangle((0, 0, edge[0] - 1, edge[1] - 1), radius=3 * scale, fill=150)
    plate = Image.new("RGB", edge, (12, 14, 24))
    plate.paste((245, 245, 248), (5 * scale, 2 * scale), words)
    opacity.paste(235, (5 * scale, 2 * scale), words)
    return plate, opacity


def _places(
    image: Image.Image, free: Image.Image | None, size: tuple[int, int], margin: int
) -> Iterator[tuple[int, int]]:
    """Yield where the plate may lie: in the corners of the image, then low in the middle of what is free."""
    areas = [(0, 0, *image.size)]
    if free is not None and (box := free.getbbox()):
        areas.append(box)
    for left, top, right, bottom in areas:
        near, far = left + margin, right - margin - size[0]
        high, low = top + margin, bottom - margin - size[1]
        if near > far or high > low:
            continue
        rising = [((near + far) // 2, low - (low - high) * step // 8) for step in range(9)]
        for x, y in ((near, low), (far, low), (near, high), (far, high), *rising):
            if free is None or free.crop((x, y, x + size[0], y + size[1])).getextrema()[0] == WHITE:
                yield x, y
