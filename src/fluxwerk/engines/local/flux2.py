"""FLUX.2: klein and dev, from a prompt and up to eight references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from fluxwerk.engines import Order
from fluxwerk.engines.local.canvas import flat, working
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.foreign import Pipeline, Tensor, torch
from fluxwerk.engines.local.sample import Sample, Text
from fluxwerk.engines.local.shift import flux2

# Larger references are shrunk, as the stock pipeline does.
LARGEST_REFERENCE = 1024 * 1024


class Flux2(Family):
    """klein (distilled or base) and dev; they differ in their text encoder and in how they are guided."""

    def encode(self, prompt: str) -> Text:
        """Run Qwen3 or Mistral over a prompt padded to 512 tokens; what is longer is cut off."""
        embeds, ids = self.pipe.encode_prompt(prompt=prompt, device=torch.device(self.device))
        return Text(embeds, ids[0])

    def admit(self, number: int, order: Order) -> Sample:
        """Make a draft of a prompt and its references."""
        pipe, text, chance = self.own(), self.encoder(order.prompt), self.chance(order)
        size = working((order.width, order.height))
        latents, ids = self.noise(pipe, size, text, chance)
        draft = Sample(
            number,
            order,
            self,
            text,
            latents,
            ids[0],
            (size,),
            pipe.scheduler,
            self.schedule(pipe.scheduler, latents.shape[1], order),
            self.strength(order),
            negative=self.encoder("") if self.is_doubled(order) else None,
        )
        if order.references:
            self.look_at(pipe, draft, [flat(data) for data in order.references], chance)
        return draft

    def is_doubled(self, order: Order) -> bool:
        """Whether each step takes a second pass without the prompt, as klein base does to be guided."""
        return self.row.kind.pipeline == "Flux2KleinPipeline" and self.row.kind.guided and self.strength(order) > 1

    def noise(self, pipe: Pipeline, size: tuple[int, int], text: Text, chance: Any) -> tuple[Tensor, Tensor]:
        """Draw the noise to begin with, and its positions."""
        channels = self.transformer.config.in_channels // 4
        found: tuple[Tensor, Tensor] = pipe.prepare_latents(
            batch_size=1,
            num_latents_channels=channels,
            height=size[1],
            width=size[0],
            dtype=text.embeds.dtype,
            device=torch.device(self.device),
            generator=chance,
            latents=None,
        )
        return found

    def look_at(self, pipe: Pipeline, draft: Sample, pictures: Sequence[Image.Image], chance: Any) -> None:
        """Encode the references and lay them beside the draft, each at a time of its own."""
        images = [self.reference(pipe, picture) for picture in pictures]
        draft.beside, ids = pipe.prepare_image_latents(
            images=images,
            batch_size=1,
            generator=chance,
            device=torch.device(self.device),
            dtype=self.pipe.vae.dtype,
        )
        draft.ids = torch.cat([draft.ids, ids[0]])
        draft.shape = (*draft.shape, *((image.shape[-1], image.shape[-2]) for image in images))

    def reference(self, pipe: Pipeline, picture: Image.Image) -> Tensor:
        """Shrink a reference to a megapixel and to the grid."""
        processor, grid = pipe.image_processor, pipe.vae_scale_factor * 2
        processor.check_image_input(picture)
        if picture.width * picture.height > LARGEST_REFERENCE:
            picture = processor._resize_to_target_area(picture, LARGEST_REFERENCE)  # noqa: SLF001  (stock pixels)
        width, height = (side // grid * grid for side in picture.size)
        return processor.preprocess(picture, height=height, width=width, resize_mode="crop")

    def develop(self, draft: Sample) -> Image.Image:
        """Decode the latents."""
        image = self.pipe.vae.decode(self.unpacked(draft, draft.latents), return_dict=False)[0]
        found: Image.Image = self.pipe.image_processor.postprocess(image, output_type="pil")[0]
        return found

    def unpacked(self, draft: Sample, latents: Tensor) -> Tensor:
        """Undo the packing and the normalisation of the latents."""
        pipe, vae = self.pipe, self.pipe.vae
        grid = pipe.vae_scale_factor * 2
        width, height = draft.shape[0]
        # The tokens lie row by row.
        patches = latents.reshape(1, height // grid, width // grid, -1).permute(0, 3, 1, 2)
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(patches.device, patches.dtype)
        deviation = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
        patches = patches * deviation.to(patches.device, patches.dtype) + mean
        return pipe._unpatchify_latents(patches)  # noqa: SLF001

    def shift(self, tokens: int, steps: int) -> float:
        """Say how far the schedule is shifted."""
        return flux2(tokens, steps)
