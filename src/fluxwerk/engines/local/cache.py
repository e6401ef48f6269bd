"""Step caching: a step whose velocity hardly changed is followed by one that uses it again, without a forward pass.

It is for weights that take many small steps, and it changes pixels; so a row asks for it, and no row does by default.
"""

from __future__ import annotations

from fluxwerk.engines.local.foreign import Tensor
from fluxwerk.engines.local.sample import Sample

# The share of the steps at the beginning, where the picture is composed, that is never left out.
SETTLED = 0.2


def leaves_out(sample: Sample, velocity: Tensor) -> bool:
    """Whether the sample's next step may use this velocity again, which is that of its latest step.

    Only the sample's own velocities count, so the answer does not depend on who shares its passes. The last step is
    taken whole, and never are two steps left out in a row.
    """
    threshold = sample.family.row.cache
    if threshold is None:
        return False
    before, sample.velocity = sample.velocity, velocity
    if before is None or sample.step < SETTLED * sample.steps or sample.step >= sample.steps - 1:
        return False
    change = float((velocity - before).abs().mean() / before.abs().mean().clamp_min(1e-12))
    if change >= threshold:
        return False
    # The next step is compared with none, so that it is a whole one.
    sample.velocity = None
    return True
