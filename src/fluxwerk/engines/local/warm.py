"""The first image, made before anyone asks: it loads kernels, compiles blocks, and shows that the weights work."""

from __future__ import annotations

import io
from collections.abc import Iterable

from PIL import Image

from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.foreign import torch
from fluxwerk.engines.local.loop import Loop


def warm(families: Iterable[Family], side: int) -> None:
    """Run one step, the VAE and the text encoder of each family at that size, in pixels."""
    for number, family in enumerate(families):
        with torch.no_grad():
            draft = family.admit(number, _order(family, side))
            loop = Loop()
            loop.add(draft)
            loop.tick()
            if draft.fault is not None:
                raise draft.fault
            family.picture(draft)


def _order(family: Family, side: int) -> Order:
    canvas = None if family.row.kind.paints else Canvas(_grey(side // 2), None, (side // 4, side // 4))
    return Order(family.row.model, "", 0, side, side, canvas=canvas)


def _grey(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (127, 127, 127)).save(file, "PNG")
    return file.getvalue()
