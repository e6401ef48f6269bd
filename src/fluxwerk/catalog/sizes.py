"""Output sizes in pixels: what follows from a request and the images in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from math import isqrt

from fluxwerk.catalog.rows import Model, ratio
from fluxwerk.types import Json

Size = tuple[int, int]

MEGAPIXEL = 1024 * 1024
SQUARE = (1024, 1024)
# FLUX.2 shrinks larger inputs to four megapixels before use, keeping their ratio.
LARGEST_REFERENCE = 4 * MEGAPIXEL
SMALLEST_SIDE = 64
# The output sizes of Kontext, all about one megapixel.
KONTEXT_SIZES = (
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024),
    (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688), (1568, 672),
)  # fmt: skip
RESOLUTIONS = {"768sq": 768, "1k": 1024, "1.5k": 1536, "2k": 2048, "4k": 4096}


def output_size(model: Model, given: Mapping[str, Json], inputs: Sequence[Size | None] = ()) -> Size:
    """Return the size of the delivered image; an input of unknown size counts as 1024 by 1024."""
    first = (inputs[0] or SQUARE) if inputs else None
    if model.output == "ratio-1mp":
        return _nearest_kontext(_shape(model, given, first))
    if model.output == "ratio-4mp":
        return _by_area(_shape(model, given, None), 4 * MEGAPIXEL, 32, ROUND_CEILING)
    if model.output == "resolution":
        return _by_resolution(model, given, first)
    if model.output == "source":
        return first or SQUARE
    if model.output == "margins":
        return _with_margins(given, first or SQUARE)
    return floored(requested_size(model, given, inputs), model.grid)


def requested_size(model: Model, given: Mapping[str, Json], inputs: Sequence[Size | None] = ()) -> Size:
    """Return the billed size: the requested one, else that of the first input, else the model's default."""
    if model.output not in ("size", "canvas"):
        return output_size(model, given, inputs)
    width, height = given.get("width") or 0, given.get("height") or 0
    matches = model.references > 0 and bool(inputs)
    auto = shrunk((inputs[0] or SQUARE), LARGEST_REFERENCE) if matches else _default(model)
    return int(width) or auto[0], int(height) or auto[1]


def floored(size: Size, grid: int) -> Size:
    """Round a size down to the grid, as FLUX.2 does, with at least 64 pixels a side."""
    width, height = (max(SMALLEST_SIDE, side // grid * grid) for side in size)
    return width, height


def placed(wanted: tuple[int | None, int | None], middle: tuple[int, int]) -> tuple[int, int]:
    """Return the offset of a source: the wanted one, or along an axis without one the middle."""
    x, y = wanted
    return middle[0] if x is None else x, middle[1] if y is None else y


def shrunk(size: Size, most: int) -> Size:
    """Shrink a size to at most `most` pixels, keeping its ratio."""
    width, height = size
    if width * height <= most:
        return size
    narrow = max(1, isqrt(most * width // height))
    return narrow, max(1, narrow * height // width)


def _default(model: Model) -> Size:
    options = model.options
    width = options["width"].default if "width" in options else None
    height = options["height"].default if "height" in options else None
    return int(width or SQUARE[0]), int(height or SQUARE[1])


def _shape(model: Model, given: Mapping[str, Json], first: Size | None) -> Decimal:
    usual = model.options["aspect_ratio"].default if "aspect_ratio" in model.options else None
    wanted = given.get("aspect_ratio", usual)
    value = ratio(wanted) if isinstance(wanted, str) else None
    if value is not None:
        return value
    return Decimal(first[0]) / first[1] if first else Decimal(1)


def _by_resolution(model: Model, given: Mapping[str, Json], first: Size | None) -> Size:
    """Return the exact size where both sides are given, else the area of the resolution in the wanted shape."""
    width, height = int(given.get("width") or 0), int(given.get("height") or 0)
    if width and height:
        return floored((width, height), model.grid)
    side = RESOLUTIONS.get(str(given.get("resolution")), RESOLUTIONS["1k"])
    return _by_area(_shape(model, given, first), side * side, model.grid, ROUND_HALF_EVEN)


def _nearest_kontext(shape: Decimal) -> Size:
    return min(KONTEXT_SIZES, key=lambda size: abs(shape - Decimal(size[0]) / size[1]))


def _by_area(shape: Decimal, area: int, grid: int, rounding: str) -> Size:
    width, height = (area * shape).sqrt() / grid, (area / shape).sqrt() / grid
    return int(width.to_integral_value(rounding)) * grid, int(height.to_integral_value(rounding)) * grid


def _with_margins(given: Mapping[str, Json], size: Size) -> Size:
    left, right, top, bottom = (int(given.get(side) or 0) for side in ("left", "right", "top", "bottom"))
    return size[0] + left + right, size[1] + top + bottom
