"""What the live service lets pass in silence: unknown fields, surplus references, sizes off the grid.

A strict server refuses each of them; any other names them in a header and in its log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import cast

from fluxwerk.catalog.rows import Model, did_you_mean
from fluxwerk.catalog.sizes import floored
from fluxwerk.types import Json

HEADER = "x-fluxwerk-warning"
MOST_REMARKS = 10
# What is larger is refused for its area.
LONGEST_SIDE = 1_000_000
# A name comes from the client and goes into a header and a log.
PLAIN_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
NUMBERED = re.compile(r"input_image_(\d{1,3})")
# Words of other models and services whose counterpart no spelling suggests.
HINTS = {
    "aspect_ratio": ("width", "give width and height"),
    "size": ("width", "give width and height"),
    "resolution": ("width", "give width and height"),
    "prompt_upsampling": ("disable_pup", "did you mean 'disable_pup'?"),
    "input_image": ("image", "did you mean 'image'?"),
    "num_inference_steps": ("steps", "did you mean 'steps'?"),
    "guidance_scale": ("guidance", "did you mean 'guidance'?"),
    "n": ("prompt", "a submit makes one image"),
    "num_images": ("prompt", "a submit makes one image"),
}


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing in a body that has no effect, or another one than it says."""

    field: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" + ("" if self.kind == "off_grid" else "; ignored")

    def entry(self) -> dict[str, Json]:
        """Write it as one entry of a 422."""
        return {"type": self.kind, "loc": ["body", self.field], "msg": self.reason}


def remarks(model: Model, given: Json) -> list[Remark]:
    """Name everything in a body that the live service would ignore or change without a word."""
    if not isinstance(given, dict):
        return []
    body = cast("dict[str, Json]", given)
    found = chain(_off_grid(model, body), _surplus(model, body), _unknown(model, body))
    # A body may hold a million unknown fields, and each costs a search for the nearest name.
    return list(islice(found, MOST_REMARKS))


def header(found: Sequence[Remark]) -> dict[str, str]:
    """Write remarks as the header of an answer; without remarks there is no header."""
    return {HEADER: "; ".join(map(str, found))} if found else {}


def _unknown(model: Model, given: Mapping[str, Json]) -> Iterator[Remark]:
    if model.strict:
        return
    for name in given:
        if name in model.options:
            continue
        numbered = NUMBERED.fullmatch(name)
        if numbered and model.references and model.reference_field == "input_image":
            reason = f"{model.name} takes at most {model.references} images"
            yield Remark(name, "surplus_reference", reason)
            continue
        shown = name if PLAIN_NAME.fullmatch(name) else ascii(name)[:64]
        hint = _hint(model, name)
        reason = f"{model.name} has no such field" + (f"; {hint}" if hint else "")
        yield Remark(shown, "unknown_field", reason)


def _hint(model: Model, name: str) -> str:
    needed, hint = HINTS.get(name, ("", ""))
    return hint if needed in model.options else did_you_mean(name[:64], model.options)


def _surplus(model: Model, given: Mapping[str, Json]) -> Iterator[Remark]:
    images = given.get("images")
    count = len(cast("list[Json]", images)) if isinstance(images, list) else 0
    if "images" in model.options and count > model.references:
        reason = f"{count} images are given, and only the first {model.references} are used"
        yield Remark("images", "surplus_reference", reason)


def _off_grid(model: Model, given: Mapping[str, Json]) -> Iterator[Remark]:
    for name in ("width", "height"):
        side = given.get(name)
        if name not in model.options or type(side) is not int or not 0 < side <= LONGEST_SIDE:
            continue
        made, _ = floored((side, side), model.grid)
        if made != side:
            reason = f"{side} is not a multiple of {model.grid}; the nearest size below is {made}"
            yield Remark(name, "off_grid", reason)
