"""The images of a submit: fetched or decoded from their text, and measured before they are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fluxwerk.catalog import images, sizes
from fluxwerk.catalog.images import LARGEST_BYTES
from fluxwerk.catalog.rows import IMAGE_TYPES, Model
from fluxwerk.catalog.sizes import Size
from fluxwerk.engines import Canvas
from fluxwerk.errors import Fault, TaskTimeoutError, TransportError
from fluxwerk.server import survey
from fluxwerk.server.bodies import LARGEST_QUESTION
from fluxwerk.server.errors import ServerError, unfit
from fluxwerk.types import Call, Flow, HttpRequest, Json

OK = 200
# 20 MB as base64 with a line break after every 16 characters, which no tool writes more often.
LONGEST_TEXT = LARGEST_BYTES * 3 // 2
# Bytes that a byte of a prompt may take in JSON, where it is written as \u0001.
ESCAPED = 6


@dataclass(frozen=True, slots=True)
class ReceivedImages:
    """An image that came with a submit; `size` in pixels as a viewer shows it, EXIF orientation included."""

    name: str
    data: bytes = field(repr=False)
    size: Size


def largest_body(model: Model, longest_prompt: int) -> int:
    """Return how many bytes a submit to this model may have: its images as base64, its prompt, and the other fields."""
    kinds = [option.type for option in model.options.values() if option.type in IMAGE_TYPES]
    images = sum(model.references if kind == "images" else 1 for kind in kinds)
    return images * LONGEST_TEXT + longest_prompt * ESCAPED + LARGEST_QUESTION


def has_images(model: Model, fields: Mapping[str, Json]) -> bool:
    """Whether images come with a submit."""
    return any(model.options[name].type in IMAGE_TYPES for name in fields)


def attach(model: Model, fields: Mapping[str, Json]) -> Flow[list[ReceivedImages]]:
    """Gather the images of a submit in the order of the model's options; surplus ones are ignored, as live."""
    attached: list[ReceivedImages] = []
    for name, option in model.options.items():
        if option.type not in IMAGE_TYPES or name not in fields:
            continue
        texts = fields[name] if isinstance(fields[name], list) else [fields[name]]
        for text in texts[: model.references or 1]:
            data = yield from _fetch(name, text)
            attached.append(_measured(model, name, data))
    _check_mask(attached)
    return attached


def canvas(model: Model, fields: Mapping[str, Json], attached: list[ReceivedImages], size: Size) -> Canvas | None:
    """Place the source on the output, for models that change an image in part."""
    named = {one.name: one for one in attached}
    source = named.get("image") or (named.get("input_image") if model.output == "canvas" else None)
    if source is None:
        return None
    mask = named.get("mask")
    offset = (0, 0)
    if model.output == "margins":
        offset = int(fields.get("left") or 0), int(fields.get("top") or 0)
    if model.output == "canvas":
        middle = (size[0] - source.size[0]) // 2, (size[1] - source.size[1]) // 2
        wanted = fields.get("reference_offset_x"), fields.get("reference_offset_y")
        x, y = sizes.placed(wanted, middle)
        # Just out of sight is as good as farther, and an engine cannot place at a number of a hundred digits.
        offset = _within(x, -source.size[0], size[0]), _within(y, -source.size[1], size[1])
    return Canvas(source.data, mask.data if mask else None, offset)


def _within(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _fetch(name: str, text: str) -> Flow[bytes]:
    if not text.lstrip().startswith(("http://", "https://")):
        return _decoded(name, text)
    try:
        response = yield Call(HttpRequest("GET", text.strip()))
    except TransportError as error:
        raise _invalid(name, f"cannot be fetched: {error}") from None
    except TaskTimeoutError:
        raise _invalid(name, "cannot be fetched: the images before it took all the time allowed for fetching") from None
    if response.status != OK:
        raise _invalid(name, f"cannot be fetched: its host answered {response.status}")
    return response.body


def _decoded(name: str, text: str) -> bytes:
    if len(text) > LONGEST_TEXT:
        raise _invalid(name, "is larger than 20 MB")
    try:
        data = survey.decode(text)
    except ValueError as wrong:
        raise _invalid(name, f"cannot be used: {wrong}; send an http(s) URL, a data URI or base64") from None
    if len(data) > LARGEST_BYTES:
        raise _invalid(name, "is larger than 20 MB")
    return data


def _measured(model: Model, name: str, data: bytes) -> ReceivedImages:
    finding = survey.find(data)
    found = images.check_found(name, finding.fault, finding.raster, model)
    if isinstance(found, Fault):
        raise _refused(found)
    return ReceivedImages(name, data, found.upright)


def _check_mask(attached: list[ReceivedImages]) -> None:
    sizes = {one.name: one.size for one in attached}
    fault = images.check_mask(sizes.get("mask"), sizes.get("image"))
    if fault:
        raise _refused(fault)


def _refused(fault: Fault) -> ServerError:
    size = f"is {fault.value}; it " if fault.value else ""
    return _invalid(fault.field, f"{size}{fault.allowed}")


def _invalid(name: str, reason: str) -> ServerError:
    return unfit(name, f"Image {reason}", "image_invalid")
