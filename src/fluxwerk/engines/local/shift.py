"""How far the schedule of steps is shifted towards the noise, by the size of the image."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast


def flux2(tokens: int, steps: int) -> float:
    """Return the shift of FLUX.2, by the curve that BFL fitted; the function is that of diffusers."""
    module = import_module("diffusers.pipelines.flux2.pipeline_flux2")
    curve = cast("Callable[..., float]", module.compute_empirical_mu)
    return curve(image_seq_len=tokens, num_steps=steps)


def flux1(tokens: int, config: Any) -> float:
    """Return the shift of FLUX.1, by the straight line between the ends in the scheduler's configuration."""
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (many - few)
    return float(tokens * slope + (low - slope * few))
