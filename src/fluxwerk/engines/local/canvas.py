"""Inpainting on a canvas: fit the source to a size that the weights support, and lay the result over it."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from PIL import Image, ImageChops, ImageFilter

from fluxwerk.catalog.sizes import Size
from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.codec import decode

GRID = 16
# Both inpainting pipelines were trained at about one megapixel.
CANVAS_PIXELS = 1024 * 1024
GREY = (127, 127, 127)


@dataclass(frozen=True, slots=True)
class Patch:
    """The source as it lies on the output, and a mask that is white where to generate; both have the output's size."""

    base: Image.Image
    mask: Image.Image

    def at(self, size: Size) -> tuple[Image.Image, Image.Image]:
        """Return both at another size."""
        return resized(self.base, size), resized(self.mask, size, Image.Resampling.BILINEAR)

    def finish(self, rendered: Image.Image) -> Image.Image:
        """Lay the rendered image over the source, so that no pixel changes where the mask is black."""
        return Image.composite(resized(rendered, self.base.size), self.base, self.mask)


def place(order: Order, canvas: Canvas) -> Patch:
    """Lay the source of an order upon its output."""
    source = decode(canvas.source)
    mask = _mask(canvas, source)
    if margin := int(order.options.get("dilate_pixels") or 0):
        mask = mask.filter(ImageFilter.MaxFilter(2 * margin + 1))
    size = (order.width, order.height)
    base, free = Image.new("RGB", size, GREY), Image.new("L", size, 255)
    base.paste(source.convert("RGB"), canvas.offset)
    free.paste(mask, canvas.offset)
    return Patch(base, free)


def working_size(size: Size, largest: int | None = None) -> Size:
    """Return the size at which to render: at most `largest` pixels, each side a multiple of 16."""
    width, height = size
    factor = min(1.0, sqrt(largest / (width * height))) if largest else 1.0
    if factor < 1:
        return max(GRID, int(width * factor) // GRID * GRID), max(GRID, int(height * factor) // GRID * GRID)
    return -(-width // GRID) * GRID, -(-height // GRID) * GRID


def resized(image: Image.Image, size: Size, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """Return the image at a size; an image that has it already is returned as it is."""
    if image.size == size:
        return image
    # Pillow's stubs name a numpy type, and a machine that checks types may not have numpy.
    return image.resize(size, how)  # pyright: ignore[reportUnknownMemberType]


def flatten(data: bytes) -> Image.Image:
    """Decode a reference; transparent pixels become white."""
    image = decode(data)
    if image.mode != "RGBA":
        return image
    ground = Image.new("RGB", image.size, (255, 255, 255))
    ground.paste(image, (0, 0), image)
    return ground


def _mask(canvas: Canvas, source: Image.Image) -> Image.Image:
    """Return the mask, or the source's transparency, or a mask that keeps the whole source."""
    if canvas.mask is not None:
        image = decode(canvas.mask)
        mask = image.convert("L")
        if image.mode == "RGBA":
            mask = ImageChops.multiply(mask, image.getchannel("A"))
        return resized(mask, source.size, Image.Resampling.NEAREST)
    if source.mode == "RGBA":
        return ImageChops.invert(source.getchannel("A"))
    return Image.new("L", source.size)
