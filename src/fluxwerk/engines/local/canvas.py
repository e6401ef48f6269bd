"""A source that is repainted in part: brought to a size that the weights like, and back without touching the rest."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from PIL import Image, ImageChops, ImageFilter

from fluxwerk.catalog.sizes import Size
from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.codec import decode

GRID = 16
# Both inpainting pipelines were made for about one megapixel.
LARGEST = 1024 * 1024
GREY = (127, 127, 127)


@dataclass(frozen=True, slots=True)
class Patch:
    """The source as it lies on the output, and a mask that is white where to paint; both as large as the output."""

    base: Image.Image
    mask: Image.Image

    def at(self, size: Size) -> tuple[Image.Image, Image.Image]:
        """Return both at another size."""
        if self.base.size == size:
            return self.base, self.mask
        return scaled(self.base, size), scaled(self.mask, size, Image.Resampling.BILINEAR)

    def finish(self, painted: Image.Image) -> Image.Image:
        """Lay what was painted upon the source, so that no pixel changes where the mask is black."""
        return Image.composite(fitted(painted, self.base.size), self.base, self.mask)


def place(order: Order, canvas: Canvas) -> Patch:
    """Lay the source of an order upon its output."""
    source = decode(canvas.source)
    mask = _mask(canvas, source)
    if grown := int(order.options.get("dilate_pixels") or 0):
        mask = mask.filter(ImageFilter.MaxFilter(2 * grown + 1))
    size = (order.width, order.height)
    base, free = Image.new("RGB", size, GREY), Image.new("L", size, 255)
    base.paste(source.convert("RGB"), canvas.offset)
    free.paste(mask, canvas.offset)
    return Patch(base, free)


def working(size: Size, largest: int | None = None) -> Size:
    """Return the size at which to render: shrunk to at most so many pixels, each side the next multiple of 16."""
    width, height = size
    factor = min(1.0, sqrt(largest / (width * height))) if largest else 1.0
    if factor < 1:
        return max(GRID, int(width * factor) // GRID * GRID), max(GRID, int(height * factor) // GRID * GRID)
    return -(-width // GRID) * GRID, -(-height // GRID) * GRID


def scaled(picture: Image.Image, size: Size, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """Return the picture at another size."""
    # Its stubs name a type of numpy, which a machine that checks types need not have.
    return picture.resize(size, how)  # pyright: ignore[reportUnknownMemberType]


def fitted(picture: Image.Image, size: Size) -> Image.Image:
    """Bring a rendered picture to the size that was ordered."""
    return picture if picture.size == size else scaled(picture, size)


def flat(data: bytes) -> Image.Image:
    """Decode a reference; what is transparent in it becomes white."""
    picture = decode(data)
    if picture.mode != "RGBA":
        return picture
    ground = Image.new("RGB", picture.size, (255, 255, 255))
    ground.paste(picture, (0, 0), picture)
    return ground


def _mask(canvas: Canvas, source: Image.Image) -> Image.Image:
    """Return the mask, else the source's own transparency, else nothing but what lies around the source."""
    if canvas.mask is not None:
        picture = decode(canvas.mask)
        mask = picture.convert("L")
        if picture.mode == "RGBA":
            mask = ImageChops.multiply(mask, picture.getchannel("A"))
        return mask if mask.size == source.size else scaled(mask, source.size, Image.Resampling.NEAREST)
    if source.mode == "RGBA":
        return ImageChops.invert(source.getchannel("A"))
    return Image.new("L", source.size)
