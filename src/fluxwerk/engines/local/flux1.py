"""FLUX.1: dev and schnell from a prompt, Kontext from a prompt and an image, Fill from a canvas."""

from __future__ import annotations

from typing import Any

from PIL import Image

from fluxwerk.catalog.sizes import KONTEXT_SIZES
from fluxwerk.engines import Order
from fluxwerk.engines.local.canvas import CANVAS_PIXELS, flatten, place, working_size
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.sample import Sample
from fluxwerk.engines.local.shift import flux1
from fluxwerk.engines.local.text import Text


class Flux1(Family):
    """FluxPipeline: dev takes guidance, schnell does not."""

    def encode(self, prompt: str) -> Text:
        """Run CLIP and T5 over a prompt padded to 512 tokens, 256 with schnell; the rest is cut off."""
        embeds, pooled, ids = self.pipe.encode_prompt(
            prompt=prompt,
            prompt_2=None,
            device=torch.device(self.text_device),
            max_sequence_length=self.row.kind.prompt_tokens,
        )
        return Text(embeds, ids, pooled)

    def prepare(self, number: int, order: Order) -> Sample:
        """Return the sample of a prompt."""
        pipe, text, size = self.fresh_pipeline(), self.encoder(order.prompt), working_size((order.width, order.height))
        latents, ids = pipe.prepare_latents(
            1,
            self.transformer.config.in_channels // 4,
            size[1],
            size[0],
            text.embeds.dtype,
            torch.device(self.device),
            self.generator(order),
            None,
        )
        return self.sample(number, order, text, latents, ids, (size,), pipe.scheduler)

    def sample(
        self,
        number: int,
        order: Order,
        text: Text,
        latents: Tensor,
        ids: Tensor,
        shape: tuple[tuple[int, int], ...],
        scheduler: Any,
    ) -> Sample:
        """Return a sample with its schedule."""
        times = self.schedule(scheduler, latents.shape[1], order)
        return Sample(number, order, self, text, latents, ids, shape, scheduler, times, self.guidance_scale(order))

    def decode(self, sample: Sample) -> Image.Image:
        """Decode the latents."""
        image = self.pipe.vae.decode(self.unpack(sample, sample.latents), return_dict=False)[0]
        found: Image.Image = self.pipe.image_processor.postprocess(image, output_type="pil")[0]
        return found

    def unpack(self, sample: Sample, latents: Tensor) -> Tensor:
        """Undo the packing and the scaling of the latents."""
        pipe, config = self.pipe, self.pipe.vae.config
        width, height = sample.shape[0]
        patches = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)  # noqa: SLF001
        return patches / config.scaling_factor + config.shift_factor

    def shift(self, tokens: int, steps: int) -> float:  # noqa: ARG002  (FLUX.2's follows from both)
        """Return how far the schedule is shifted."""
        return flux1(tokens, self.pipe.scheduler.config)


class Kontext(Flux1):
    """FluxKontextPipeline: one reference, resized to the nearest size that Kontext was trained on."""

    def prepare(self, number: int, order: Order) -> Sample:
        """Return the sample of a prompt and at most one reference."""
        pipe, text, size = self.fresh_pipeline(), self.encoder(order.prompt), working_size((order.width, order.height))
        near = pixels = None
        if order.references:
            image = flatten(order.references[0])
            near = min(KONTEXT_SIZES, key=lambda known: (abs(image.width / image.height - known[0] / known[1]), known))
            image = pipe.image_processor.resize(image, near[1], near[0])
            pixels = pipe.image_processor.preprocess(image, near[1], near[0])
        latents, reference_tokens, ids, more = pipe.prepare_latents(
            pixels,
            1,
            self.transformer.config.in_channels // 4,
            size[1],
            size[0],
            text.embeds.dtype,
            torch.device(self.device),
            self.generator(order),
            None,
        )
        shape = (size, near) if near else (size,)
        ids = ids if more is None else torch.cat([ids, more])
        sample = self.sample(number, order, text, latents, ids, shape, pipe.scheduler)
        sample.reference_tokens = reference_tokens
        return sample


class Fill(Flux1):
    """FluxFillPipeline: the masked image and its mask are extra channels of each token."""

    def prepare(self, number: int, order: Order) -> Sample:
        """Return the sample of a canvas."""
        assert order.canvas is not None, "Fill needs a canvas"
        pipe, text, generator, device = (
            self.fresh_pipeline(),
            self.encoder(order.prompt),
            self.generator(order),
            torch.device(self.device),
        )
        patch = place(order, order.canvas)
        width, height = size = working_size(patch.base.size, CANVAS_PIXELS)
        base, mask = patch.at(size)
        image = pipe.image_processor.preprocess(base, height=height, width=width).to(dtype=torch.float32)
        channels = pipe.vae.config.latent_channels
        tokens = width * height // (pipe.vae_scale_factor * 2) ** 2
        times = self.schedule(pipe.scheduler, tokens, order)
        latents, ids = pipe.prepare_latents(
            image, times[:1], 1, channels, height, width, text.embeds.dtype, device, generator, None
        )
        covered = pipe.mask_processor.preprocess(mask, height=height, width=width)
        masked = (image * (1 - covered)).to(device=device, dtype=text.embeds.dtype)
        mask_latents, source = pipe.prepare_mask_latents(
            covered, masked, 1, channels, 1, height, width, text.embeds.dtype, device, generator
        )
        more = torch.cat((source, mask_latents), dim=-1)
        guidance = self.guidance_scale(order)
        return Sample(
            number,
            order,
            self,
            text,
            latents,
            ids,
            (size,),
            pipe.scheduler,
            times,
            guidance,
            extra_channels=more,
            patch=patch,
        )
