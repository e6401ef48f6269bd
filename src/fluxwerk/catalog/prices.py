"""Cost estimates in credits (1 credit = 1 US cent), in exact decimals.

The rule is the guide's: (first + (out - 1) * more) + in * more.  A megapixel is 1024 * 1024 pixels; the output and
each input are rounded up to whole megapixels, at least one.  Every result is an estimate: the service charges the
`cost` of its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from fluxwerk.catalog.rows import Model, Price, get_model
from fluxwerk.catalog.sizes import LARGEST_REFERENCE, MEGAPIXEL, RESOLUTIONS, SQUARE, Size, requested_size
from fluxwerk.errors import UnknownPriceError
from fluxwerk.types import Request

CENT = Decimal("0.01")
# A ratio on the grid makes an image a little larger than its resolution says.
ROUNDED_UP = Decimal("1.05")


def billed_megapixels(width: int, height: int) -> int:
    """Return the whole megapixels that are billed for a size in pixels, at least one."""
    return max(1, -(-width * height // MEGAPIXEL))


def reported_megapixels(*sizes: Size) -> Decimal:
    """Return the megapixels that a submit reports: the sum of the sizes, rounded to two decimals."""
    pixels = sum(width * height for width, height in sizes)
    return (Decimal(pixels) / MEGAPIXEL).quantize(CENT)


def estimate(
    model: str | Model, width: int | None = None, height: int | None = None, inputs: Sequence[Size] = ()
) -> Decimal:
    """Estimate one image in credits; sizes in pixels, `inputs` the (width, height) of each reference.

    Raises `UnknownPriceError` when the price is not public, and `UnknownModelError`.
    """
    row = get_model(model)
    given = {"width": width, "height": height}
    return _cost(row, requested_size(row, given, inputs), inputs)


def estimate_request(request: Request, model: Model | None = None) -> Decimal:
    """Estimate a request in credits; an image known only by its URL counts as one megapixel."""
    row = model or get_model(request.model)
    sizes = [size or SQUARE for size in request.sizes]
    return _cost(row, requested_size(row, request.fields, sizes), sizes)


def _cost(model: Model, output: Size, inputs: Sequence[Size]) -> Decimal:
    price = _known(model)
    if price.image is not None:
        return price.image
    if price.resolution:
        return _tier(price.resolution, output)
    assert price.first is not None
    assert price.more is not None
    billed = inputs if price.inputs else ()
    used = sum(min(billed_megapixels(*size), LARGEST_REFERENCE // MEGAPIXEL) for size in billed)
    return price.first + (billed_megapixels(*output) - 1) * price.more + used * price.more


def _tier(tiers: Mapping[str, Decimal], output: Size) -> Decimal:
    """Return the price of the smallest resolution that holds this size, or of the largest there is."""
    pixels = output[0] * output[1]
    for name, cost in tiers.items():
        if pixels <= RESOLUTIONS[name] ** 2 * ROUNDED_UP:
            return cost
    return list(tiers.values())[-1]


def _known(model: Model) -> Price:
    if model.price is None:
        note = f" ({model.note})" if model.note else ""
        raise UnknownPriceError(f"The price of {model.name} is not public, so it cannot be estimated{note}.")
    return model.price
