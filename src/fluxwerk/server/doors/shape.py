"""Sizes as other APIs write them, turned into the options that a model has for its size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from math import gcd, log

from fluxwerk.catalog import sizes
from fluxwerk.catalog.rows import Model, Option, ratio
from fluxwerk.catalog.sizes import RESOLUTIONS, SMALLEST_SIDE, Size
from fluxwerk.server.doors.refusal import RefusedError
from fluxwerk.types import Json

WRITTEN = re.compile(r"(\d{1,5})\s*[x×]\s*(\d{1,5})")
AUTO = ("", "auto")
NARROWEST, WIDEST = Fraction(9, 21), Fraction(21, 9)


def read(text: Json) -> Size | None:
    """Read "1024x768"; `None` for "auto" and for nothing; raises `RefusedError`."""
    if text is None or str(text).lower() in AUTO:
        return None
    found = WRITTEN.fullmatch(str(text))
    if not found or not int(found[1]) or not int(found[2]):
        message = f"size: {str(text)[:40]!r} is no size; write WIDTHxHEIGHT in pixels, such as 1024x768, or auto"
        raise RefusedError(400, "validation_error", message, field="size")
    return int(found[1]), int(found[2])


def options(model: Model, size: Size | None) -> Mapping[str, Json]:
    """Return the options that come nearest to a size; one that is too large shrinks and keeps its shape."""
    if size is None:
        return {}
    known = model.options
    if "width" in known and "height" in known:
        width, height = _snapped(model, size)
        return {"width": width, "height": height}
    given: dict[str, Json] = {}
    if "aspect_ratio" in known:
        given["aspect_ratio"] = _nearest_ratio(known["aspect_ratio"], size)
    if "resolution" in known:
        area = size[0] * size[1]
        given["resolution"] = min(RESOLUTIONS, key=lambda name: abs(log(RESOLUTIONS[name] ** 2 / area)))
    return given


def _snapped(model: Model, size: Size) -> Size:
    width, height = model.options["width"], model.options["height"]
    scale = min(1.0, _most(width) / size[0], _most(height) / size[1])
    fitting = int(size[0] * scale), int(size[1] * scale)
    if model.maximum_pixels:
        fitting = sizes.shrunk(fitting, model.maximum_pixels)
    snapped = sizes.floored(fitting, model.grid)
    return max(snapped[0], _least(width)), max(snapped[1], _least(height))


def _most(option: Option) -> int:
    return int(option.maximum or 100_000)


def _least(option: Option) -> int:
    return int(option.minimum or SMALLEST_SIDE)


def _nearest_ratio(option: Option, size: Size) -> str:
    wanted = max(NARROWEST, min(Fraction(*size), WIDEST))
    if option.choices:
        shapes = {name: shape for name in option.choices if (shape := ratio(name)) is not None}
        return min(shapes, key=lambda name: abs(log(float(shapes[name]) / float(wanted))))
    common = gcd(wanted.numerator, wanted.denominator)
    return f"{wanted.numerator // common}:{wanted.denominator // common}"
