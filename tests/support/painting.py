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


# A tick without drafts costs nothing.
MOST_PASSES = 1000


def paint(family: Family, order: Order) -> Image.Image:
    """Return the picture of one order."""
    return pictures(finish(Loop(), family.admit(1, order)))[0]


def finish(loop: Loop, *drafts: Sample) -> list[Sample]:
    """Run passes until all of these drafts are done."""
    for draft in drafts:
        loop.add(draft)
    for _ in range(MOST_PASSES):
        loop.tick()
    assert not len(loop.drafts), "the loop does not come to an end"
    return list(drafts)


def pictures(drafts: list[Sample]) -> list[Image.Image]:
    """Return the pictures of finished drafts."""
    with torch.no_grad():
        return [draft.family.picture(draft) for draft in drafts]
