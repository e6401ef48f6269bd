"""Orders through the loop on one thread, pass by pass, without a process or a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fluxwerk.engines.local.loop import Loop

if TYPE_CHECKING:
    from PIL import Image

    from fluxwerk.engines import Order
    from fluxwerk.engines.local.family import Family
    from fluxwerk.engines.local.sample import Sample


# A tick without samples costs nothing.
MOST_PASSES = 1000


def paint(family: Family, order: Order) -> Image.Image:
    """Return the image of one order."""
    return images(finish(Loop(), family.prepare(1, order)))[0]


def finish(loop: Loop, *samples: Sample) -> list[Sample]:
    """Run passes until all of these samples are done."""
    for sample in samples:
        loop.add(sample)
    for _ in range(MOST_PASSES):
        loop.tick()
    assert not len(loop.samples), "the loop does not come to an end"
    return list(samples)


def images(samples: list[Sample]) -> list[Image.Image]:
    """Return the images of finished samples."""
    with torch.no_grad():
        return [sample.family.finish(sample) for sample in samples]
