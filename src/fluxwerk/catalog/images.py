"""What the service takes as an image, and as the mask of one: the same rules for client, batch and server."""

from __future__ import annotations

from fluxwerk import imagefile
from fluxwerk.catalog.rows import Model
from fluxwerk.catalog.sizes import Size
from fluxwerk.errors import Fault
from fluxwerk.imagefile import Raster

# The service takes 20 MB or 20 megapixels an image, by its documentation.
LARGEST_BYTES = 20 * 1024 * 1024


def inspect(name: str, data: bytes, model: Model) -> Raster | Fault:
    """Measure an image from outside without decoding it, or say why the model does not take it."""
    if len(data) > LARGEST_BYTES:
        return Fault(name, None, "must be at most 20 MB", "shrink it or save it as JPEG")
    return check_found(name, imagefile.fault(data), imagefile.measure(data), model)


def check_found(name: str, wrong: str | None, raster: Raster | None, model: Model) -> Raster | Fault:
    """Compare what was found in the bytes of an image with what the model takes."""
    if wrong or raster is None:
        return Fault(name, None, f"must be a whole PNG, JPEG or WebP; {wrong}")
    return check_size(name, raster.upright, model) or raster


def check_size(name: str, size: Size, model: Model) -> Fault | None:
    """Compare a size in pixels with what the model takes."""
    width, height = size
    least, most = model.smallest_input, model.largest_input_megapixels
    if width * height > most * 1_000_000:
        return Fault(name, f"{width}×{height}", f"must be at most {most} megapixels", "shrink it first")
    if min(width, height) < least:
        return Fault(name, f"{width}×{height}", f"must be at least {least} pixels on each side")
    return None


def check_mask(mask: Size | None, image: Size | None) -> Fault | None:
    """Compare the upright sizes of a mask and its image; what is unknown, as behind a URL, passes."""
    if not mask or not image or mask == image:
        return None
    return Fault("mask", "{}×{}".format(*mask), "must be as large as the image, {}×{}".format(*image))
