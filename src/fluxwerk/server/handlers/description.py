"""An extension: what a model takes, as a program or a page needs it to offer exactly that."""

from __future__ import annotations

from fluxwerk.catalog.rows import Model, Option, Price
from fluxwerk.types import Json

# What one request says to the service, and a page never asks for.
UNSHOWN = frozenset({"webhook_url", "webhook_secret", "user"})


def describe(model: Model) -> dict[str, Json]:
    """Write one row of the catalogue: what the model is good for, its price, its images, and its options' ranges."""
    return {
        "name": model.name,
        "title": model.title,
        "path": model.path,
        "also": list(model.also),
        "licence": model.licence or None,
        "best_for": model.best_for,
        "family": model.family,
        "output": model.output,
        "grid": model.grid,
        "maximum_pixels": model.maximum_pixels,
        "references": model.references,
        "reference_field": model.reference_field,
        "smallest_input": model.smallest_input,
        "largest_input_megapixels": model.largest_input_megapixels,
        "price": None if model.price is None else _price(model.price),
        "options": {name: _option(option) for name, option in model.options.items() if name not in UNSHOWN},
    }


def _price(price: Price) -> dict[str, Json]:
    columns: dict[str, Json] = {"first": price.first, "more": price.more, "image": price.image}
    return {**columns, "resolution": dict(price.resolution)}


def _option(option: Option) -> dict[str, Json]:
    written: dict[str, Json] = {
        "required": option.required or None,
        "minimum": option.minimum,
        "maximum": option.maximum,
        "multiple": option.multiple,
        "choices": list(option.choices) or None,
        "minimum_length": option.minimum_length,
        "maximum_length": option.maximum_length,
        "note": option.note or None,
    }
    known = {name: value for name, value in written.items() if value is not None}
    return {"type": option.type, "default": option.default, **known}
