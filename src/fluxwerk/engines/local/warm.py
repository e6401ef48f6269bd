"""The warm-up image: it loads kernels, compiles blocks and proves that the weights work before the first order."""

from __future__ import annotations

import io
from collections.abc import Iterable

from PIL import Image

from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.foreign import torch
from fluxwerk.engines.local.loop import Loop


def warm(families: Iterable[Family], side: int) -> None:
    """Run the text encoder, one step and the VAE of each family, for a square image of `side` pixels."""
    for number, family in enumerate(families):
        with torch.no_grad():
            sample = family.prepare(number, _order(family, side))
            loop = Loop()
            loop.add(sample)
            loop.tick()
            if sample.fault is not None:
                raise sample.fault
            family.finish(sample)


def _order(family: Family, side: int) -> Order:
    canvas = None if family.row.kind.generates else Canvas(_grey(side // 2), None, (side // 4, side // 4))
    return Order(family.row.model, "", 0, side, side, canvas=canvas)


def _grey(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (127, 127, 127)).save(file, "PNG")
    return file.getvalue()
