"""FLUX.1: dev and schnell from a prompt, Kontext from a prompt and a picture, Fill from a canvas."""

from __future__ import annotations

from typing import Any

from PIL import Image

from fluxwerk.catalog.sizes import KONTEXT_SIZES
from fluxwerk.engines import Order
from fluxwerk.engines.local.canvas import LARGEST, flat, place, working
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.sample import Sample, Text
from fluxwerk.engines.local.shift import flux1


class Flux1(Family):
    """FluxPipeline: dev takes guidance in, schnell knows none."""

    def encode(self, prompt: str) -> Text:
        """Run CLIP and T5 over a prompt padded to 512 tokens, 256 with schnell; what is longer is cut off."""
        embeds, pooled, ids = self.pipe.encode_prompt(
            prompt=prompt,
            prompt_2=None,
            device=torch.device(self.device),
            max_sequence_length=self.row.kind.prompt_tokens,
        )
        return Text(embeds, ids, pooled)

    def admit(self, number: int, order: Order) -> Sample:
        """Make a draft of a prompt."""
        pipe, text, size = self.own(), self.encoder(order.prompt), working((order.width, order.height))
        latents, ids = pipe.prepare_latents(
            1,
            self.transformer.config.in_channels // 4,
            size[1],
            size[0],
            text.embeds.dtype,
            torch.device(self.device),
            self.chance(order),
            None,
        )
        return self.draft(number, order, text, latents, ids, (size,), pipe.scheduler)

    def draft(
        self,
        number: int,
        order: Order,
        text: Text,
        latents: Tensor,
        ids: Tensor,
        shape: tuple[tuple[int, int], ...],
        scheduler: Any,
    ) -> Sample:
        """Put a draft together."""
        times = self.schedule(scheduler, latents.shape[1], order)
        return Sample(number, order, self, text, latents, ids, shape, scheduler, times, self.strength(order))

    def develop(self, draft: Sample) -> Image.Image:
        """Decode the latents."""
        image = self.pipe.vae.decode(self.unpacked(draft, draft.latents), return_dict=False)[0]
        found: Image.Image = self.pipe.image_processor.postprocess(image, output_type="pil")[0]
        return found

    def unpacked(self, draft: Sample, latents: Tensor) -> Tensor:
        """Undo the packing and the scaling of the latents."""
        pipe, config = self.pipe, self.pipe.vae.config
        width, height = draft.shape[0]
        patches = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)  # noqa: SLF001
        return patches / config.scaling_factor + config.shift_factor

    def shift(self, tokens: int, steps: int) -> float:  # noqa: ARG002  (FLUX.2's follows from both)
        """Say how far the schedule is shifted."""
        return flux1(tokens, self.pipe.scheduler.config)


class Kontext(Flux1):
    """FluxKontextPipeline: one reference, brought to the nearest of the sizes that Kontext was trained on."""

    def admit(self, number: int, order: Order) -> Sample:
        """Make a draft of a prompt and its reference, if there is one."""
        pipe, text, size = self.own(), self.encoder(order.prompt), working((order.width, order.height))
        near = image = None
        if order.references:
            picture = flat(order.references[0])
            near = min(
                KONTEXT_SIZES, key=lambda known: (abs(picture.width / picture.height - known[0] / known[1]), known)
            )
            picture = pipe.image_processor.resize(picture, near[1], near[0])
            image = pipe.image_processor.preprocess(picture, near[1], near[0])
        latents, beside, ids, more = pipe.prepare_latents(
            image,
            1,
            self.transformer.config.in_channels // 4,
            size[1],
            size[0],
            text.embeds.dtype,
            torch.device(self.device),
            self.chance(order),
            None,
        )
        shape = (size, near) if near else (size,)
        ids = ids if more is None else torch.cat([ids, more])
        draft = self.draft(number, order, text, latents, ids, shape, pipe.scheduler)
        draft.beside = beside
        return draft


class Fill(Flux1):
    """FluxFillPipeline: the masked picture and its mask are further channels of each token."""

    def admit(self, number: int, order: Order) -> Sample:
        """Make a draft of a canvas."""
        assert order.canvas is not None, "Fill needs something to fill"
        pipe, text, chance, device = (
            self.own(),
            self.encoder(order.prompt),
            self.chance(order),
            torch.device(self.device),
        )
        patch = place(order, order.canvas)
        width, height = size = working(patch.base.size, LARGEST)
        base, mask = patch.at(size)
        image = pipe.image_processor.preprocess(base, height=height, width=width).to(dtype=torch.float32)
        channels = pipe.vae.config.latent_channels
        tokens = width * height // (pipe.vae_scale_factor * 2) ** 2
        times = self.schedule(pipe.scheduler, tokens, order)
        latents, ids = pipe.prepare_latents(
            image, times[:1], 1, channels, height, width, text.embeds.dtype, device, chance, None
        )
        covered = pipe.mask_processor.preprocess(mask, height=height, width=width)
        masked = (image * (1 - covered)).to(device=device, dtype=text.embeds.dtype)
        seen, source = pipe.prepare_mask_latents(
            covered, masked, 1, channels, 1, height, width, text.embeds.dtype, device, chance
        )
        more = torch.cat((source, seen), dim=-1)
        strength = self.strength(order)
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
            strength,
            channels=more,
            patch=patch,
        )
