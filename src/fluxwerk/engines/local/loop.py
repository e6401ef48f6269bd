"""The step loop: one forward pass at a time, shared by samples of one shape at any step."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fluxwerk.engines.local import device
from fluxwerk.engines.local.cache import leaves_out
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.group import Groups
from fluxwerk.engines.local.sample import Sample

# By the prices of klein 4B: two images of a megapixel with their prompts, or eight of 512 x 512.
PASS_BUDGET = 14_000.0

log = logging.getLogger("fluxwerk.engines.local")


class OutOfMemoryError(Exception):
    """The device has too little memory for this image, even alone."""


class Loop:
    """Steps samples until they are done; it runs on one thread."""

    def __init__(self, budget: float = PASS_BUDGET) -> None:
        self.samples: Groups[Sample] = Groups(budget)
        self.passes = 0

    def add(self, sample: Sample) -> None:
        """Add a sample; it takes part from the next pass on."""
        self.samples.add(sample)

    def cancel(self, number: int) -> bool:
        """Remove a sample, which takes no further step, and return whether it was here."""
        return self.samples.drop(number) is not None

    def tick(self) -> list[Sample]:
        """Run one forward pass, return the samples that took part, and remove those that are done."""
        batch = self.samples.pick()
        if not batch:
            return []
        # Referenced until the device has finished; otherwise another stream could reuse memory that is still read.
        held = [sample.latents for sample in batch]
        with torch.no_grad():
            velocity = self._predict(batch)
            if velocity is not None:
                self.passes += 1
                for place, sample in enumerate(batch):
                    sample.passes.append(len(batch))
                    own = velocity[place : place + 1]
                    sample.family.advance(sample, own)
                    if leaves_out(sample, own):
                        sample.family.advance(sample, own)
                        sample.left_out += 1
        device.synchronize(batch[0].family.device)
        held.clear()
        for sample in batch:
            if sample.is_done:
                self.samples.drop(sample.number)
        return batch if velocity is not None or batch[0].fault else []

    def _predict(self, batch: Sequence[Sample]) -> Tensor | None:
        """Return the velocities, or `None` after a fault: smaller passes follow, and a lone sample fails."""
        first = batch[0]
        try:
            first.family.adapt(batch)
            return first.family.predict(batch)
        except Exception as fault:
            # Any other fault concerns this pass only.
            if device.is_lost(fault):
                raise
            memory = isinstance(fault, torch.OutOfMemoryError)
            if memory:
                device.free_memory(first.family.device)
            if len(batch) > 1:
                log.warning(
                    "A pass of %d images failed with %s; it is repeated in smaller passes.",
                    len(batch),
                    type(fault).__name__,
                )
                self.samples.limit(first.key, len(batch) // 2 if memory else 1)
                return None
            first.fault = too_large(first) if memory else fault
            return None


def too_large(sample: Sample) -> OutOfMemoryError:
    """Return the error for an image that does not fit into the memory of the device."""
    order = sample.order
    what = f"{order.width}×{order.height}" + (f" with {len(order.references)} references" if order.references else "")
    return OutOfMemoryError(
        f"{what} needs more memory than the device has. Request a smaller image or fewer references."
    )
