"""The images that come with a submit: fetched or decoded from their text, and measured before anything opens them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fluxwerk import imagefile
from fluxwerk.catalog import sizes
from fluxwerk.catalog.rows import IMAGE_TYPES, Model
from fluxwerk.catalog.sizes import Size
from fluxwerk.client.inputs import LARGEST_BYTES
from fluxwerk.engines import Canvas
from fluxwerk.errors import TaskTimeoutError, TransportError
from fluxwerk.server.errors import ServerError, unfit
from fluxwerk.types import Call, Flow, HttpRequest, Json

OK = 200
# 20 MB as base64 with a line break after every 16 characters, which no tool writes more often.
LONGEST_TEXT = LARGEST_BYTES * 3 // 2


@dataclass(frozen=True, slots=True)
class ReceivedImages:
    """An image that came with a submit; `size` in pixels as a viewer shows it, EXIF orientation included."""

    name: str
    data: bytes = field(repr=False)
    size: Size


def attach(model: Model, fields: Mapping[str, Json]) -> Flow[list[ReceivedImages]]:
    """Gather the images of a submit in the order of the model's options; more than it takes are left out."""
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
    """Lay the source on the output, for the models that change an image in part."""
    images = {one.name: one for one in attached}
    source = images.get("image") or (images.get("input_image") if model.output == "canvas" else None)
    if source is None:
        return None
    mask = images.get("mask")
    offset = (0, 0)
    if model.output == "margins":
        offset = int(fields.get("left") or 0), int(fields.get("top") or 0)
    if model.output == "canvas":
        middle = (size[0] - source.size[0]) // 2, (size[1] - source.size[1]) // 2
        wanted = fields.get("reference_offset_x"), fields.get("reference_offset_y")
        x, y = sizes.placed(wanted, middle)
        # Out of sight is far enough: a number of a hundred digits is no place for an engine.
        offset = _within(x, -source.size[0], size[0]), _within(y, -source.size[1], size[1])
    return Canvas(source.data, mask.data if mask else None, offset)


def _within(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _fetch(name: str, text: str) -> Flow[bytes]:
    if not text.lstrip().startswith(("http://", "https://")):
        return _decoded(name, text)
    try:
        response = yield Call(HttpRequest("GET", text.strip()))
    except TransportError as lost:
        raise _useless(name, f"cannot be fetched: {lost}") from None
    except TaskTimeoutError:
        raise _useless(name, "cannot be fetched: those before it took all the time that there is") from None
    if response.status != OK:
        raise _useless(name, f"cannot be fetched: its host answered {response.status}")
    return response.body


def _decoded(name: str, text: str) -> bytes:
    if len(text) > LONGEST_TEXT:
        raise _useless(name, "is larger than 20 MB")
    try:
        data = imagefile.read_base64(text)
    except ValueError as wrong:
        raise _useless(name, f"cannot be used: {wrong}; send an http(s) URL, a data URI or base64") from None
    if len(data) > LARGEST_BYTES:
        raise _useless(name, "is larger than 20 MB")
    return data


def _measured(model: Model, name: str, data: bytes) -> ReceivedImages:
    fault, size = imagefile.fault(data), imagefile.upright(data)
    if fault or size is None:
        raise _useless(name, f"cannot be used: {fault}; PNG, JPEG or WebP is needed")
    width, height = size
    if width * height > model.largest_input_megapixels * 1_000_000:
        raise _useless(name, f"is {width}×{height}; at most {model.largest_input_megapixels} megapixels are taken")
    if min(width, height) < model.smallest_input:
        raise _useless(name, f"is {width}×{height}; each side needs {model.smallest_input} pixels")
    return ReceivedImages(name, data, size)


def _check_mask(attached: list[ReceivedImages]) -> None:
    sizes = {one.name: one.size for one in attached}
    mask, image = sizes.get("mask"), sizes.get("image")
    if mask and image and mask != image:
        reason = f"is {mask[0]}×{mask[1]}, but the image to change is {image[0]}×{image[1]}; both must be of one size"
        raise _useless("mask", reason)


def _useless(name: str, reason: str) -> ServerError:
    return unfit(name, f"Image {reason}", "image_invalid")
