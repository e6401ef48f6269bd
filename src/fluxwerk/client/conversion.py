"""Stills that the service does not read, written as what it reads, by Pillow and at full quality.

Pillow is imported where it is used, so that a program without images does not load it.
"""

from __future__ import annotations

import io
import logging
import struct
from importlib import import_module
from typing import TYPE_CHECKING

from fluxwerk.catalog.images import LARGEST_BYTES, check_size
from fluxwerk.catalog.rows import Model
from fluxwerk.errors import Fault
from fluxwerk.imagefile import ORIENTATION, TURNS

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

# What Pillow reads itself; HEIC is read by the package pillow-heif.
STILLS = ("GIF", "BMP", "TIFF", "AVIF")
# An uncompressed BMP or TIFF of 20 megapixels with 16 bits and alpha, and its header.
LARGEST_STILL = 161 * 1024 * 1024
PNG_OR_JPEG = "save it as PNG or JPEG"
EXIF_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error)

log = logging.getLogger("fluxwerk")


def convert(name: str, data: bytes, kind: str, model: Model) -> bytes | Fault:
    """Write a still of the format `kind` as PNG, or as JPEG where a PNG exceeds 20 MB; the log says so.

    Of several pages the first is taken; an animation is refused.
    """
    if kind not in (*STILLS, "HEIC"):
        return Fault(name, kind, "must be a PNG, JPEG or WebP", PNG_OR_JPEG)
    try:
        image = _open(data, kind)
        moves = kind in ("GIF", "AVIF") and getattr(image, "is_animated", False)
    except ModuleNotFoundError as missing:
        extra = "heif" if missing.name == "pillow_heif" else "images"
        hint = f"{PNG_OR_JPEG}, or pip install 'fluxwerk[{extra}]' and the client converts it"
        return Fault(name, kind, "must be a PNG, JPEG or WebP", hint)
    except Exception as error:  # noqa: BLE001  (decoders of foreign bytes raise nearly anything)
        return Fault(name, kind, f"cannot be read: {error}", PNG_OR_JPEG)
    if moves:
        return Fault(name, kind, "must be one image; it is an animation", "save one frame as PNG")
    converted = encode(name, image, model)
    if not isinstance(converted, Fault):
        log.warning("%s: converted from %s to %s", name, kind, "PNG" if converted.startswith(b"\x89PNG") else "JPEG")
    return converted


def encode(name: str, image: PilImage, model: Model) -> bytes | Fault:
    """Write a Pillow image upright as PNG, or as JPEG where a PNG exceeds 20 MB; its size is checked before it is read.

    The colour profile is kept; other metadata, such as a place, is not.
    """
    wrong = check_size(name, image.size, model)
    if wrong:
        return wrong
    try:
        image = _turned(image)
        data = _written(image, "PNG")
        if len(data) > LARGEST_BYTES and not image.has_transparency_data:
            rgb = image if image.mode in ("L", "RGB") else image.convert("RGB")
            data = _written(rgb, "JPEG", quality=95, subsampling=0)
    except Exception as error:  # noqa: BLE001  (a lazy image is read only now, and its decoder raises nearly anything)
        return Fault(name, None, f"cannot be saved as PNG: {error}", 'image.convert("RGB") may help')
    return data


def _open(data: bytes, kind: str) -> PilImage:
    """Read the header; pixels are decoded later, once the size is known to fit."""
    if kind == "HEIC":
        heif = import_module("pillow_heif")
        opened: PilImage = heif.HeifImageFile(io.BytesIO(data))
        return opened
    from PIL import Image  # noqa: PLC0415

    return Image.open(io.BytesIO(data), formats=(kind,))


def _turned(image: PilImage) -> PilImage:
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except EXIF_ERRORS:
        # A camera's broken EXIF is not a reason to refuse its photograph.
        turn = None
    if turn is None:
        return image
    from PIL.Image import Transpose  # noqa: PLC0415

    return image.transpose(Transpose[turn])


def _written(image: PilImage, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, icc_profile=image.info.get("icc_profile"), **options)
    return file.getvalue()
