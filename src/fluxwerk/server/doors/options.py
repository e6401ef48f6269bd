"""The options of a model among the fields of a request at a door; whatever else came is ignored, as there."""

from __future__ import annotations

from collections.abc import Mapping

from fluxwerk.catalog.rows import IMAGE_TYPES, Model, Option
from fluxwerk.server.doors.refusal import RefusedError
from fluxwerk.types import Json

# What a door writes itself, or what it cannot hand on.
OWN = frozenset(
    {"prompt", "width", "height", "aspect_ratio", "resolution", "output_format", "webhook_url", "webhook_secret"}
)
TRUTH = {"true": True, "false": False, "1": True, "0": False}


def chosen(model: Model, fields: Mapping[str, Json]) -> dict[str, Json]:
    """Return the fields that are options of the model; the texts of a form become numbers and truths."""
    return {
        name: _read(option, fields[name])
        for name, option in model.options.items()
        if name in fields and name not in OWN and option.type not in IMAGE_TYPES and fields[name] is not None
    }


def place_images(model: Model, images: list[str]) -> dict[str, Json]:
    """Put images where the model takes them; raises `RefusedError` for more than it takes."""
    names = model.reference_names() or tuple(
        name for name, option in model.options.items() if option.type in IMAGE_TYPES and name != "mask"
    )
    most = model.references or len(names)
    if len(images) > most:
        text = f"image: {model.name} takes {f'at most {most}' if most else 'no'} images, and {len(images)} came"
        raise RefusedError(400, "validation_error", text, field="image")
    if names == ("images",):
        return {"images": images}
    return dict(zip(names, images, strict=False))


def file_type(model: Model, wanted: Json) -> dict[str, Json]:
    """Choose the type of the image's file: the one that is asked for, else PNG where the model makes it."""
    option = model.options.get("output_format")
    if option is None:
        return {}
    if wanted:
        return {"output_format": wanted}
    return {"output_format": "png"} if "png" in option.choices else {}


def count(name: str, given: Json, most: int) -> int:
    """Read a number of images, 1 if there is none; raises `RefusedError`."""
    text = str(1 if given in (None, "") else given)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= most):
        message = f"{name}: {text[:20]} is not a whole number from 1 to {most}"
        raise RefusedError(400, "validation_error", message, field=name)
    return int(text)


def varied(model: Model, body: Mapping[str, Json], number: int) -> list[Mapping[str, Json]]:
    """Repeat a body; a seed rises by one for each, since the same seed would make the same image."""
    seed = body.get("seed")
    if not isinstance(seed, int) or "seed" not in model.options:
        return [body] * number
    return [{**body, "seed": seed + step} for step in range(number)]


def _read(option: Option, value: Json) -> Json:
    if not isinstance(value, str):
        return value
    try:
        match option.type:
            case "integer":
                return int(value)
            case "number":
                return float(value)
            case "boolean":
                return TRUTH.get(value.lower(), value)
            case _:
                return value
    except ValueError:
        # The server's own check says what is allowed.
        return value
