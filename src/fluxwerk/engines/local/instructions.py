"""What a prompt upsampler is told: BFL's instructions for a family of weights, as diffusers has them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, TypeAlias

from PIL import Image

Messages: TypeAlias = list[dict[str, Any]]
# As many as the stock pipeline of FLUX.2 lets its encoder write.
FLUX2_TOKENS = 512
# As many as the stock upsampler of FLUX.3; it is repeated here because memory is planned without importing diffusers.
FLUX3_TOKENS = 3584


def most_tokens(pipeline: str) -> int:
    """Return how many tokens an answer may have."""
    return FLUX3_TOKENS if pipeline.startswith("Flux3") else FLUX2_TOKENS


def for_text(pipeline: str, prompt: str) -> Messages:
    """Return the conversation with a model that reads text alone."""
    if pipeline.startswith("Flux3"):
        system = _flux3().SYSTEM_PROMPTS["t2i"]
    else:
        system = import_module("diffusers.pipelines.flux2.system_messages").SYSTEM_MESSAGE_UPSAMPLING_T2I
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


def for_images(prompt: str, references: Sequence[Image.Image]) -> Messages:
    """Return the conversation with FLUX.3's own upsampler, whose contents are lists of images and texts."""
    stock = _flux3()
    images: list[Any] = stock.prepare_references(list(references)) if references else []
    request = stock.I2I_SCAFFOLD[False].format(instruction=prompt) if images else prompt
    system = stock.SYSTEM_PROMPTS["i2i" if images else "t2i"]
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": request}]
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, {"role": "user", "content": content}]


def _flux3() -> Any:
    return import_module("diffusers.modular_pipelines.flux3.prompt_upsampler")
