"""Previews: turn latents into colours by a least-squares fit, without the VAE."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from fluxwerk.engines.local.foreign import Tensor, torch

if TYPE_CHECKING:
    from fluxwerk.engines.local.sample import Sample

FIT_SIDE = 256
PREVIEW_SIDE = 192
QUALITY = 70


def draw(sample: Sample, estimate: Tensor) -> bytes:
    """Return a small JPEG of the image that the latest step predicts."""
    with torch.no_grad():
        latents = sample.family.unpack(sample, estimate)[0].float()
        weights = _fit(sample.family.pipe.vae)
        colours = torch.einsum("chw,cr->hwr", latents, weights[:-1].to(latents.device)) + weights[-1].to(latents.device)
        pixels = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@cache
def _fit(vae: Any) -> Tensor:
    """Return the colour of each latent channel, fitted to a test image: (channels and a constant, 3).

    The fit works for any VAE, so no table of factors is needed.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    with torch.no_grad():
        coarse = torch.rand((1, 3, 12, 12), generator=generator) * 2 - 1
        image = torch.nn.functional.interpolate(coarse, size=(FIT_SIDE, FIT_SIDE), mode="bicubic").clamp(-1, 1)
        latents = vae.encode(image.to(vae.device, vae.dtype)).latent_dist.mode()[0].float().cpu()
        small = torch.nn.functional.interpolate(image, size=latents.shape[-2:], mode="area")[0]
        seen = torch.cat([latents.flatten(1), torch.ones(1, latents[0].numel())]).T
        # Damping keeps the weights of channels small that the test image does not exercise.
        damped = seen.T @ seen + 1e-2 * torch.eye(seen.shape[1])
        return torch.linalg.solve(damped, seen.T @ small.flatten(1).T)
