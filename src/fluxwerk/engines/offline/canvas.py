"""A source image that is changed in part: which pixels may change, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageFilter

from fluxwerk.engines.codec import decode
from fluxwerk.engines.offline.brush import curved, scaled

if TYPE_CHECKING:
    from fluxwerk.engines import Canvas


def place(canvas: Canvas, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Return the source placed on the output, and a mask that is white where pixels may change."""
    source = decode(canvas.source)
    if canvas.mask is not None:
        mask = _flat(decode(canvas.mask)).convert("L")
        if mask.size != source.size:
            mask = scaled(mask, source.size)
    elif source.mode == "RGBA":
        mask = ImageChops.invert(source.getchannel("A"))
    else:
        mask = Image.new("L", source.size)
    base, free = Image.new("RGB", size), Image.new("L", size, 255)
    base.paste(source.convert("RGB"), canvas.offset)
    free.paste(mask, canvas.offset)
    return base, free


def raise_source(image: Image.Image, free: Image.Image) -> None:
    """Draw a soft shadow of the kept source on what is painted around it."""
    reach = max(2, min(image.size) // 48)
    small = ImageChops.invert(free).reduce(4).filter(ImageFilter.BoxBlur(max(1, reach // 4)))
    faint = curved(small, [level // 2 for level in range(256)])
    image.paste((8, 8, 20), (0, 0), scaled(faint, image.size))


def inpaint(base: Image.Image, free: Image.Image) -> Image.Image:
    """Fill the free part with the colours around it, blurred more the farther they are."""
    known = base.convert("RGBA")
    known.putalpha(ImageChops.invert(curved(free, [0] + [255] * 255)))
    return _pull(known)


def sharpen(base: Image.Image) -> Image.Image:
    """Return the image with crisper edges."""
    return base.filter(ImageFilter.UnsharpMask(radius=2, percent=140, threshold=2))


def _pull(known: Image.Image) -> Image.Image:
    """Return the image with every hole filled from a coarser one of half the size."""
    if max(known.size) == 1:
        return known.convert("RGB")
    coarse = scaled(_pull(known.reduce(2)), known.size)
    coarse.paste(known.convert("RGB"), (0, 0), known.getchannel("A"))
    return coarse


def _flat(image: Image.Image) -> Image.Image:
    """Return the image on a black ground: what is transparent in a mask marks nothing."""
    ground = Image.new("RGB", image.size)
    ground.paste(image, (0, 0), image if image.mode == "RGBA" else None)
    return ground
