"""An extension: estimate the cost of a request without submitting it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fluxwerk import catalog
from fluxwerk.catalog import prices, sizes
from fluxwerk.errors import UnknownModelError, UnknownPriceError
from fluxwerk.protocol import wire
from fluxwerk.server import schema
from fluxwerk.server.errors import invalid, unfit
from fluxwerk.server.handlers.submit import check_area
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Json, Response

Side = Annotated[int, Field(ge=1, le=100_000)]
# A price needs the sizes of the images, not the images; at most this many.
IMAGES = 10


class Quote(BaseModel):
    """A model by name or path, the sizes of its input images in pixels, and any options that set a size."""

    model_config = ConfigDict(extra="allow")

    model: str
    inputs: Annotated[list[tuple[Side, Side]], Field(max_length=IMAGES)] = []


def price(_: ServerState, request: ServerRequest) -> Response:
    """Estimate one request in credits; `cost` is null when the price is not public."""
    given = _read(request.body)
    try:
        model = catalog.get_model(given.model)
    except UnknownModelError as fault:
        raise unfit("model", str(fault)) from None
    fields = _sizes(model, given.model_extra or {})
    inputs = given.inputs
    billed = sizes.requested_size(model, fields, inputs)
    width, height = sizes.output_size(model, fields, inputs)
    check_area(model, billed, (width, height))
    try:
        cost = prices.estimate(model, *billed, inputs=inputs)
    except UnknownPriceError:
        cost = None
    body: dict[str, Json] = {
        "model": model.name,
        "cost": cost,
        "input_mp": prices.reported_megapixels(*inputs),
        "output_mp": prices.reported_megapixels(billed),
        "width": width,
        "height": height,
        "estimate": True,
    }
    return Response(200, wire.JSON, wire.dump(body))


def _read(body: bytes) -> Quote:
    try:
        return Quote.model_validate(schema.parse(body))
    except schema.InvalidFieldsError as unfit_:
        raise invalid(unfit_.detail) from None
    except ValidationError as fault:
        raise invalid(schema.entries(fault)) from None


def _sizes(model: catalog.Model, extra: dict[str, Any]) -> dict[str, Json]:
    """Check the options that set a size, as a submit does, and drop all others."""
    names = {"width", "height", "aspect_ratio", "resolution", "top", "bottom", "left", "right"} & set(model.options)
    try:
        return schema.check_some(model, {name: extra[name] for name in names if name in extra})
    except schema.InvalidFieldsError as unfit_:
        raise invalid(unfit_.detail) from None
