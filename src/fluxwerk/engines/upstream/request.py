"""From an order to the request that the service receives: what the client wrote, with the images as text."""

from __future__ import annotations

import base64

from fluxwerk import catalog
from fluxwerk.catalog.rows import IMAGE_TYPES, Model
from fluxwerk.engines import Order
from fluxwerk.types import Json, Request


def write_request(order: Order) -> tuple[Model, Request]:
    """Write what the client asked for; a seed that this server drew and sizes that it rounded are not in it."""
    model = catalog.get_model(order.model)
    fields: dict[str, Json] = dict(order.asked)
    prompt = model.options.get("prompt")
    if prompt and (order.prompt or prompt.required):
        fields["prompt"] = order.prompt
    for name, data in _images(order, model):
        text = base64.b64encode(data).decode("ascii")
        if model.options[name].type == "images":
            fields.setdefault(name, []).append(text)
        else:
            fields[name] = text
    return model, Request(model.name, fields)


def _images(order: Order, model: Model) -> list[tuple[str, bytes]]:
    if order.canvas is None:
        return list(zip(order.names, order.references, strict=True))
    source = next(name for name, option in model.options.items() if option.type in IMAGE_TYPES)
    mask = [("mask", order.canvas.mask)] if order.canvas.mask is not None else []
    return [(source, order.canvas.source), *mask]
