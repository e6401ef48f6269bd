"""FLUX.2 [klein] inpainting: it repaints part of an image and uses the whole image as a reference."""

from __future__ import annotations

from fluxwerk.engines import Order
from fluxwerk.engines.local.canvas import CANVAS_PIXELS, place, working_size
from fluxwerk.engines.local.flux2 import Flux2
from fluxwerk.engines.local.foreign import Pipeline, Tensor, diffusers, torch
from fluxwerk.engines.local.row import Row
from fluxwerk.engines.local.sample import Preserved, Sample
from fluxwerk.engines.local.text import Encoder


class KleinInpaint(Flux2):
    """Flux2KleinInpaintPipeline at full strength; orders without a canvas are rendered by klein."""

    def __init__(self, pipe: Pipeline, row: Row, device: str = "cpu", encoder: Encoder | None = None) -> None:
        super().__init__(pipe, row, device, encoder)
        parts = {**pipe.components, "text_encoder": None, "tokenizer": None}
        # diffusers' automatic choice of inpainting pipelines does not include FLUX.2, so the class is named.
        self._inpainting = diffusers.Flux2KleinInpaintPipeline(**parts, is_distilled=pipe.config.is_distilled)

    def prepare(self, number: int, order: Order) -> Sample:
        """Return the sample of a canvas."""
        if order.canvas is None:
            return super().prepare(number, order)
        pipe, text, generator = self.fresh_pipeline(self._inpainting), self.encoder(order.prompt), self.generator(order)
        device = torch.device(self.device)
        patch = place(order, order.canvas)
        size = working_size(patch.base.size, CANVAS_PIXELS)
        base, mask = patch.at(size)
        image = pipe.image_processor.preprocess(base, size[1], size[0], resize_mode="default")
        tokens = size[0] * size[1] // (pipe.vae_scale_factor * 2) ** 2
        times = self.schedule(pipe.scheduler, tokens, order)
        latents, noise, packed, encoded, ids = pipe.prepare_latents(
            image,
            times[:1],
            1,
            self.transformer.config.in_channels // 4,
            size[1],
            size[0],
            text.embeds.dtype,
            device,
            generator,
            None,
        )
        reference_tokens, more = pipe.prepare_image_latents([encoded], 1, generator, device, text.embeds.dtype)
        covered = pipe.mask_processor.preprocess(mask, height=size[1], width=size[0], resize_mode="default")
        return Sample(
            number,
            order,
            self,
            text,
            latents,
            torch.cat([ids[0], more[0]]),
            (size, size),
            pipe.scheduler,
            times,
            self.guidance_scale(order),
            negative=self.encoder("") if self.needs_second_pass(order) else None,
            reference_tokens=reference_tokens,
            preserved=Preserved(
                packed,
                noise,
                pipe.prepare_mask_latents(covered, 1, 1, size[1], size[0], text.embeds.dtype, device),
            ),
            patch=patch,
        )

    def advance(self, sample: Sample, velocity: Tensor) -> None:
        """Take a step, then restore the source outside the mask at the noise level of the rest."""
        super().advance(sample, velocity)
        if sample.preserved is None:
            return
        stays = sample.preserved.latents
        if sample.step < sample.steps:
            time = sample.timesteps[sample.step]
            stays = sample.scheduler.scale_noise(stays, time.reshape(1), sample.preserved.noise)
        sample.latents = (1 - sample.preserved.mask) * stays + sample.preserved.mask * sample.latents
