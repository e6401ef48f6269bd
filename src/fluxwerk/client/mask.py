"""Masks: which part one marks for repainting, and whether that changes anything, before it is paid.

The service repaints what is white. Other APIs, OpenAI's for one, repaint what is transparent; such a mask is rewritten.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from fluxwerk.catalog.rows import Model
from fluxwerk.errors import Fault
from fluxwerk.imagefile import TURNS, Raster

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

MaskIs: TypeAlias = Literal["transparent", "white"]
CONVENTIONS: tuple[MaskIs, ...] = ("transparent", "white")
# Of 255: what a JPEG leaves of black, and of white.
BLACK, WHITE = 16, 240
OPAQUE = 255
SOLID = [OPAQUE * (level > OPAQUE // 2) for level in range(OPAQUE + 1)]
# The share of neither black nor white above which the colours of a mask are a photograph's, and say nothing.
PHOTOGRAPH = 0.1
EITHER = "mask_is must say what marks the part to repaint: white or transparent"

log = logging.getLogger("fluxwerk")


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask as it will be sent, and what marks the part to repaint in the file that was given."""

    data: bytes
    reading: MaskIs


def read_mask(data: bytes, raster: Raster, model: Model, mask_is: MaskIs | None = None) -> Mask | Fault:
    """Read a measured mask by `mask_is`, or find out what marks its part; refuse one that is useless.

    Needs Pillow. Without it a mask is sent as it is, with a warning, and `mask_is="transparent"` is refused.
    """
    try:
        luma, alpha = _decode(data, raster)
    except ModuleNotFoundError:
        return _unread(data, mask_is)
    except Exception as error:  # noqa: BLE001  (decoders of foreign bytes raise nearly anything)
        return Fault("mask", None, f"cannot be decoded: {error}", "save it as PNG")
    reading = mask_is or _guess(luma, alpha)
    if reading is None:
        return Fault("mask", None, "is white and transparent, which can be read in two ways", EITHER)
    marked = _marked(luma, alpha, reading)
    wrong = _useless(marked, reading, model, mask_is)
    if wrong:
        return wrong
    share = (
        sum(level * count for level, count in enumerate(marked.histogram())) / OPAQUE / (marked.width * marked.height)
    )
    text = "mask: what is %s is repainted, %.0f %% of the image%s"
    if reading == "white" and _is_opaque(alpha):
        log.info(text, reading, 100 * share, "")
        return Mask(data, reading)
    log.warning(
        text, reading, 100 * share, "; sent as black and white (mask_is, or --mask-is, chooses another reading)"
    )
    file = io.BytesIO()
    marked.save(file, "PNG")
    return Mask(file.getvalue(), reading)


def _unread(data: bytes, mask_is: MaskIs | None) -> Mask | Fault:
    hint = "pip install 'fluxwerk[images]'"
    if mask_is == "transparent":
        return Fault("mask_is", mask_is, "needs Pillow, which rewrites the mask", hint)
    log.warning("mask: sent unread, as white is repainted; %s lets the client check it before it is paid", hint)
    return Mask(data, "white")


def _decode(data: bytes, raster: Raster) -> tuple[PilImage, PilImage]:
    """Return the brightness and the opacity, upright."""
    from PIL import Image  # noqa: PLC0415  (heavy)

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
        if opened.size != raster.size:
            raise ValueError("it has another size than its header says")
        opened.load()
        turn = TURNS.get(raster.orientation)
        image = opened.copy() if turn is None else opened.transpose(Image.Transpose[turn])
    if image.mode.startswith("I"):
        high_bytes = [level // 256 for level in range(65536)]
        image = image.convert("I").point(high_bytes, "L")  # pyright: ignore[reportUnknownMemberType]
    if not image.has_transparency_data:
        return image.convert("L"), Image.new("L", image.size, OPAQUE)
    rgba = image.convert("RGBA")
    # Converting RGBA to L ignores the opacity.
    return rgba.convert("L"), rgba.getchannel("A")


def _is_opaque(alpha: PilImage) -> bool:
    return _extrema(alpha)[0] == OPAQUE


def _extrema(image: PilImage) -> tuple[int, int]:
    return cast("tuple[int, int]", image.getextrema())


def _guess(luma: PilImage, alpha: PilImage) -> MaskIs | None:
    """Say what marks the part to repaint, or `None` where it may be the white strokes or the hole around them."""
    if _is_opaque(alpha):
        return "white"
    levels = luma.histogram(alpha.point(SOLID))  # pyright: ignore[reportUnknownMemberType]
    black, white = sum(levels[:BLACK]), sum(levels[WHITE:])
    if not white or sum(levels) - black - white > PHOTOGRAPH * sum(levels):
        return "transparent"
    return "white" if black else None


def _marked(luma: PilImage, alpha: PilImage, reading: MaskIs) -> PilImage:
    from PIL import ImageChops  # noqa: PLC0415

    return ImageChops.multiply(luma, alpha) if reading == "white" else ImageChops.invert(alpha)


def _useless(marked: PilImage, reading: MaskIs, model: Model, mask_is: MaskIs | None) -> Fault | None:
    least, most = _extrema(marked)
    if most < BLACK:
        hint = f"{reading} is repainted" + (
            "; white marks it with mask_is='white' (--mask-is white)" if reading == "transparent" else ""
        )
        return Fault("mask", None, f"marks nothing: no part of it is {reading}, so the image would not change", hint)
    if least < WHITE:
        return None
    fills = not model.options or "prompt" in model.options
    if fills and mask_is:
        # Said on purpose: a new image of that size.
        return None
    hint = f"{reading} is repainted" + (
        f"; where all of it is meant: mask_is={reading!r} (--mask-is {reading})" if fills else ""
    )
    return Fault("mask", None, f"marks everything: all of it is {reading}, so nothing of the image would stay", hint)
