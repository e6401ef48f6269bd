"""FLUX.2 [klein] that repaints a part of a picture, and looks at the whole of it meanwhile."""

from __future__ import annotations

from fluxwerk.engines import Order
from fluxwerk.engines.local.canvas import LARGEST, place, working
from fluxwerk.engines.local.flux2 import Flux2
from fluxwerk.engines.local.foreign import Pipeline, Tensor, diffusers, torch
from fluxwerk.engines.local.sample import Kept, Sample
from fluxwerk.engines.local.text import Encoder
from fluxwerk.engines.local.weights import Row


class KleinInpaint(Flux2):
    """Flux2KleinInpaintPipeline at full strength; orders without a canvas are painted as klein paints them."""

    def __init__(self, pipe: Pipeline, row: Row, device: str = "cpu", encoder: Encoder | None = None) -> None:
        super().__init__(pipe, row, device, encoder)
        parts = {**pipe.components, "text_encoder": None, "tokenizer": None}
        # diffusers asks for the class by name: its automatic choice of inpainting pipelines has no FLUX.2.
        self._painter = diffusers.Flux2KleinInpaintPipeline(**parts, is_distilled=pipe.config.is_distilled)

    def admit(self, number: int, order: Order) -> Sample:
        """Make a draft of a canvas."""
        if order.canvas is None:
            return super().admit(number, order)
        pipe, text, chance = self.own(self._painter), self.encoder(order.prompt), self.chance(order)
        device = torch.device(self.device)
        patch = place(order, order.canvas)
        size = working(patch.base.size, LARGEST)
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
            chance,
            None,
        )
        beside, more = pipe.prepare_image_latents([encoded], 1, chance, device, text.embeds.dtype)
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
            self.strength(order),
            negative=self.encoder("") if self.is_doubled(order) else None,
            beside=beside,
            kept=Kept(
                packed,
                noise,
                pipe.prepare_mask_latents(covered, 1, 1, size[1], size[0], text.embeds.dtype, device),
            ),
            patch=patch,
        )

    def advance(self, draft: Sample, velocity: Tensor) -> None:
        """Take a step, then lay the source over what must stay, as noisy as the rest is now."""
        super().advance(draft, velocity)
        if draft.kept is None:
            return
        stays = draft.kept.latents
        if draft.step < draft.steps:
            time = draft.timesteps[draft.step]
            stays = draft.scheduler.scale_noise(stays, time.reshape(1), draft.kept.noise)
        draft.latents = (1 - draft.kept.mask) * stays + draft.kept.mask * draft.latents
