"""FLUX.2: klein and dev, from a prompt and up to eight references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from fluxwerk.engines import Order
from fluxwerk.engines.local.canvas import flatten, working_size
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.foreign import Pipeline, Tensor, torch
from fluxwerk.engines.local.sample import Sample
from fluxwerk.engines.local.shift import flux2
from fluxwerk.engines.local.text import Text

# The stock pipeline shrinks larger references too.
REFERENCE_PIXELS = 1024 * 1024
# Pipelines whose base weights were not taught guidance.
TWO_PASSES = ("Flux2KleinPipeline", "Flux3ModularPipeline")


class Flux2(Family):
    """klein (distilled or base) and dev; they differ in their text encoder and in their guidance."""

    def encode(self, prompt: str) -> Text:
        """Run Qwen3 or Mistral over a prompt padded to 512 tokens; the rest is cut off."""
        embeds, ids = self.pipe.encode_prompt(prompt=prompt, device=torch.device(self.text_device))
        return Text(embeds, ids[0])

    def prepare(self, number: int, order: Order) -> Sample:
        """Return the sample of a prompt and its references."""
        pipe, text, generator = self.fresh_pipeline(), self.encoder(order.prompt), self.generator(order)
        size = working_size((order.width, order.height))
        latents, ids = self.noise(pipe, size, text, generator)
        sample = Sample(
            number,
            order,
            self,
            text,
            latents,
            ids[0],
            (size,),
            pipe.scheduler,
            self.schedule(pipe.scheduler, latents.shape[1], order),
            self.guidance_scale(order),
            negative=self.encoder("") if self.needs_second_pass(order) else None,
        )
        if order.references:
            self.add_references(pipe, sample, [flatten(data) for data in order.references], generator)
        return sample

    def needs_second_pass(self, order: Order) -> bool:
        """Whether each step takes a second pass without the prompt, which is how base weights are guided."""
        kind = self.row.kind
        return kind.pipeline in TWO_PASSES and kind.guided and self.guidance_scale(order) > 1

    def noise(self, pipe: Pipeline, size: tuple[int, int], text: Text, generator: Any) -> tuple[Tensor, Tensor]:
        """Return the initial noise and its positions."""
        channels = self.transformer.config.in_channels // 4
        found: tuple[Tensor, Tensor] = pipe.prepare_latents(
            batch_size=1,
            num_latents_channels=channels,
            height=size[1],
            width=size[0],
            dtype=text.embeds.dtype,
            device=torch.device(self.device),
            generator=generator,
            latents=None,
        )
        return found

    def add_references(self, pipe: Pipeline, sample: Sample, images: Sequence[Image.Image], generator: Any) -> None:
        """Encode the references into reference tokens, each with its own time position."""
        pixels = [self.preprocess(pipe, image) for image in images]
        sample.reference_tokens, ids = pipe.prepare_image_latents(
            images=pixels,
            batch_size=1,
            generator=generator,
            device=torch.device(self.device),
            dtype=self.pipe.vae.dtype,
        )
        sample.ids = torch.cat([sample.ids, ids[0]])
        sample.shape = (*sample.shape, *((image.shape[-1], image.shape[-2]) for image in pixels))

    def preprocess(self, pipe: Pipeline, image: Image.Image) -> Tensor:
        """Shrink a reference to at most a megapixel, and crop it to the grid."""
        processor, grid = pipe.image_processor, pipe.vae_scale_factor * 2
        processor.check_image_input(image)
        if image.width * image.height > REFERENCE_PIXELS:
            image = processor._resize_to_target_area(image, REFERENCE_PIXELS)  # noqa: SLF001  (stock pixels)
        width, height = (side // grid * grid for side in image.size)
        return processor.preprocess(image, height=height, width=width, resize_mode="crop")

    def decode(self, sample: Sample) -> Image.Image:
        """Decode the latents."""
        image = self.pipe.vae.decode(self.unpack(sample, sample.latents), return_dict=False)[0]
        found: Image.Image = self.pipe.image_processor.postprocess(image, output_type="pil")[0]
        return found

    def unpack(self, sample: Sample, latents: Tensor) -> Tensor:
        """Undo the packing and the normalisation of the latents."""
        pipe, vae = self.pipe, self.pipe.vae
        grid = pipe.vae_scale_factor * 2
        width, height = sample.shape[0]
        # The tokens are in row order.
        patches = latents.reshape(1, height // grid, width // grid, -1).permute(0, 3, 1, 2)
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(patches.device, patches.dtype)
        deviation = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
        patches = patches * deviation.to(patches.device, patches.dtype) + mean
        return self.unpatchify(patches)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo the packing of two by two latents."""
        return self.pipe._unpatchify_latents(patches)  # noqa: SLF001

    def shift(self, tokens: int, steps: int) -> float:
        """Return how far the schedule is shifted."""
        return flux2(tokens, steps)
