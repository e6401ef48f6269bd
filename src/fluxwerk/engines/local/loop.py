"""The step-wise loop: one forward pass at a time, shared by drafts of one shape whatever step each is at."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fluxwerk.engines.local import device
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.group import Groups
from fluxwerk.engines.local.sample import Sample

# One image of a megapixel with its prompt, or eight of 512 x 512, by the prices of klein 4B.
BUDGET = 14_000.0

log = logging.getLogger("fluxwerk.engines.local")


class OutOfMemoryError(Exception):
    """The device has too little memory for this image, even alone."""


class Loop:
    """Steps drafts until they are done; everything here happens on one thread."""

    def __init__(self, budget: float = BUDGET) -> None:
        self.drafts: Groups[Sample] = Groups(budget)
        self.passes = 0

    def add(self, draft: Sample) -> None:
        """Let a draft step with the others from the next pass on."""
        self.drafts.add(draft)

    def cancel(self, number: int) -> bool:
        """Give a draft up; it takes no further step.  Says whether it was here."""
        return self.drafts.drop(number) is not None

    def tick(self) -> list[Sample]:
        """Run one forward pass and return the drafts that took part; those that are done have left."""
        batch = self.drafts.pick()
        if not batch:
            return []
        # Held until the device is done: other streams could be given this memory while it is still read here.
        held = [draft.latents for draft in batch]
        with torch.no_grad():
            velocity = self._predict(batch)
            if velocity is not None:
                self.passes += 1
                for place, draft in enumerate(batch):
                    draft.passes.append(len(batch))
                    draft.family.advance(draft, velocity[place : place + 1])
        device.settle(batch[0].family.device)
        held.clear()
        for draft in batch:
            if draft.is_done:
                self.drafts.drop(draft.number)
        return batch if velocity is not None or batch[0].fault else []

    def _predict(self, batch: Sequence[Sample]) -> Tensor | None:
        """Return the velocities, or nothing after a fault: then fewer try together, and one alone fails alone."""
        first = batch[0]
        try:
            return first.family.predict(batch)
        except Exception as fault:
            # Whatever else it is, the others go on.
            if device.is_lost(fault):
                raise
            memory = isinstance(fault, torch.OutOfMemoryError)
            if memory:
                device.tidy(first.family.device)
            if len(batch) > 1:
                log.warning("a pass of %d images failed and is tried in parts: %s", len(batch), type(fault).__name__)
                self.drafts.limit(first.key, len(batch) // 2 if memory else 1)
                return None
            first.fault = too_large(first) if memory else fault
            return None


def too_large(draft: Sample) -> OutOfMemoryError:
    """Say what did not fit into the memory, and what would."""
    order = draft.order
    what = f"{order.width}×{order.height}" + (f" with {len(order.references)} references" if order.references else "")
    return OutOfMemoryError(
        f"{what} needs more memory than the device has; ask for a smaller image or fewer references."
    )
