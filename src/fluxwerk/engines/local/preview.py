"""What can be seen of a picture before it is done: latents into colours by a fit, without the VAE."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from fluxwerk.engines.local.foreign import Tensor, torch

if TYPE_CHECKING:
    from fluxwerk.engines.local.sample import Sample

SAMPLE = 256
LONGEST_SIDE = 192
QUALITY = 70


def draw(draft: Sample, estimate: Tensor) -> bytes:
    """Return a small JPEG of what the draft is about to become, by the latents that its last step led to expect."""
    with torch.no_grad():
        latents = draft.family.unpacked(draft, estimate)[0].float()
        weights = _fit(draft.family.pipe.vae)
        colours = torch.einsum("chw,cr->hwr", latents, weights[:-1].to(latents.device)) + weights[-1].to(latents.device)
        pixels = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@cache
def _fit(vae: Any) -> Tensor:
    """Fit each latent's colour by least squares over a test picture: (channels and a constant, 3).

    So no table of factors is needed, and a new VAE brings its own.
    """
    chance = torch.Generator("cpu").manual_seed(0)
    with torch.no_grad():
        coarse = torch.rand((1, 3, 12, 12), generator=chance) * 2 - 1
        picture = torch.nn.functional.interpolate(coarse, size=(SAMPLE, SAMPLE), mode="bicubic").clamp(-1, 1)
        latents = vae.encode(picture.to(vae.device, vae.dtype)).latent_dist.mode()[0].float().cpu()
        small = torch.nn.functional.interpolate(picture, size=latents.shape[-2:], mode="area")[0]
        seen = torch.cat([latents.flatten(1), torch.ones(1, latents[0].numel())]).T
        # A little damping keeps channels that see nothing of the test picture from being guessed at.
        damped = seen.T @ seen + 1e-2 * torch.eye(seen.shape[1])
        return torch.linalg.solve(damped, seen.T @ small.flatten(1).T)
