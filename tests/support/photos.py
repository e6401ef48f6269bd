"""Pictures for tests, and how far two of them are apart."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageChops, ImageDraw

BOX = Image.Resampling.BICUBIC


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return something colourful that is the same in every run."""
    chance = random.Random(seed)
    return Image.frombytes("RGB", (8, 8), chance.randbytes(192)).resize((width, height), BOX)


def ellipse(width: int, height: int) -> Image.Image:
    """Return a mask that is white in the middle."""
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=255)
    return mask


def png(picture: Image.Image) -> bytes:
    """Return the picture as a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    """Return the picture in a file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def apart(one: Image.Image, other: Image.Image) -> int:
    """Return the largest difference of any channel of any pixel, of 255."""
    assert one.size == other.size
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return max(difference.tobytes())
