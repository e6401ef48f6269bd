"""Families of weights: what the loop needs from a pipeline, answered with the pipeline's own methods."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from PIL import Image

from fluxwerk.engines import Order
from fluxwerk.engines.local import ability, lora, upsampler
from fluxwerk.engines.local.canvas import resized
from fluxwerk.engines.local.foreign import Pipeline, Tensor, numpy, torch
from fluxwerk.engines.local.row import Row
from fluxwerk.engines.local.sample import Sample
from fluxwerk.engines.local.text import Encoder, Text, truncate

# Seeds beyond the generator's range wrap around.
SEEDS = 2**64
# The side of a tile in pixels where a whole image did not fit; the VAE's own tiles have 1024.
SMALL_TILE = 512


class Family(ABC):
    """One loaded pipeline: it prepares samples from orders, steps them, and decodes them into images.

    Only the subclasses know the tensor shapes of one generation of FLUX.
    """

    def __init__(self, pipe: Pipeline, row: Row, device: str = "cpu", encoder: Encoder | None = None) -> None:
        self.pipe = pipe
        self.row = row
        self.device = device
        # With offloading, a hook on the whole encoder moves it to the GPU; its inner model has no such hook.
        self.is_truncated = encoder is None and row.offload is None and truncate(pipe, self.encode)
        self.encoder = encoder or Encoder(lambda prompt: self.encode(prompt).to(device))

    @property
    def transformer(self) -> Any:
        """The model that denoises."""
        return self.pipe.transformer

    @property
    def text_device(self) -> str:
        """The device of the text encoder."""
        return self.row.text_device or self.device

    @property
    def dtype(self) -> Any:
        """The number format of latents; quantised weights have another of their own."""
        return self.pipe.vae.dtype

    @property
    def width(self) -> int:
        """The width of the transformer, from which the cost of a token follows."""
        return int(self.transformer.inner_dim)

    def upsample(self, order: Order) -> Order:
        """Return the order with its prompt written out, if it asks for that."""
        return upsampler.upsample(self.row, order, self.text_device, self.dtype)

    def adapt(self, samples: Sequence[Sample]) -> None:
        """Make the next pass use the LoRAs that the samples' orders choose."""
        lora.apply(self.pipe, self.row.lora_folder, samples)

    @abstractmethod
    def encode(self, prompt: str) -> Text:
        """Run the text encoder."""

    @abstractmethod
    def prepare(self, number: int, order: Order) -> Sample:
        """Return the sample of an order: encode its prompt and images, draw its noise, plan its steps."""

    @abstractmethod
    def decode(self, sample: Sample) -> Image.Image:
        """Decode the latents of a finished sample into an image of its working size."""

    @abstractmethod
    def shift(self, tokens: int, steps: int) -> float:
        """Return how far the schedule is shifted for an image of `tokens` in `steps`."""

    @abstractmethod
    def unpack(self, sample: Sample, latents: Tensor) -> Tensor:
        """Return latents in the layout of the VAE: (1, channels, height, width)."""

    def predict(self, samples: Sequence[Sample]) -> Tensor:
        """Return the velocities, (samples, tokens, channels), from one pass; the samples may be at different steps."""
        first = samples[0]
        velocity = self.run(samples, [sample.text for sample in samples])
        if first.negative is not None:
            other = self.run(samples, [sample.negative for sample in samples if sample.negative])
            scale = torch.tensor([sample.guidance for sample in samples], dtype=velocity.dtype, device=velocity.device)
            velocity = other + scale.view(-1, 1, 1) * (velocity - other)
        return velocity

    def run(self, samples: Sequence[Sample], texts: Sequence[Text]) -> Tensor:
        """Run the transformer once."""
        first = samples[0]
        more = {} if texts[0].pooled is None else {"pooled_projections": torch.cat([text.pooled for text in texts])}
        found = self.transformer(
            hidden_states=torch.cat([sample.model_input() for sample in samples]).to(self.dtype),
            timestep=self.times(samples),
            guidance=self.guidances(samples),
            encoder_hidden_states=torch.cat([text.embeds for text in texts]),
            txt_ids=texts[0].ids,
            img_ids=first.ids,
            return_dict=False,
            **more,
        )[0]
        return found[:, : first.latents.shape[1]]

    def times(self, samples: Sequence[Sample]) -> Tensor:
        """Return the noise level of each sample, from 1 to 0; samples at different levels can share a pass."""
        return torch.stack([sample.timesteps[sample.step] for sample in samples]).to(samples[0].latents.dtype) / 1000

    def guidances(self, samples: Sequence[Sample]) -> Tensor | None:
        """Return the guidance of each sample, or `None` if the transformer takes none."""
        if not self.transformer.config.guidance_embeds:
            return None
        return torch.tensor([sample.guidance for sample in samples], dtype=torch.float32, device=self.device)

    def advance(self, sample: Sample, velocity: Tensor) -> None:
        """Take one step along the velocity, (1, tokens, channels)."""
        time = sample.timesteps[sample.step]
        sample.estimate = sample.latents - velocity * (time / 1000).to(velocity.dtype)
        sample.latents = sample.scheduler.step(velocity, time, sample.latents, return_dict=False)[0]
        sample.step += 1

    def finish(self, sample: Sample) -> Image.Image:
        """Return the finished image in exactly the size that was ordered."""
        rendered = self.decode(sample)
        if sample.patch is not None:
            return sample.patch.finish(rendered)
        return resized(rendered, (sample.order.width, sample.order.height))

    def finish_in_tiles(self, sample: Sample) -> Image.Image:
        """Return the finished image, decoded in small tiles; it takes less memory, and seams may be visible."""
        other = copy.copy(self)
        other.pipe = copy.copy(self.pipe)
        # A copy that shares the weights, because other threads encode references with the VAE at the same time.
        other.pipe.vae = copy.copy(self.pipe.vae)
        other.pipe.vae.enable_tiling()
        other.pipe.vae.tile_sample_min_size = SMALL_TILE
        other.pipe.vae.tile_latent_min_size = SMALL_TILE // self.pipe.vae_scale_factor
        return other.finish(sample)

    def fresh_pipeline(self, pipe: Pipeline = None) -> Pipeline:
        """Return a copy of the pipeline with its own scheduler: it shares the weights, but not the state."""
        fresh = copy.copy(pipe or self.pipe)
        fresh.scheduler = copy.deepcopy(self.pipe.scheduler)
        return fresh

    def schedule(self, scheduler: Any, tokens: int, order: Order) -> Tensor:
        """Plan the steps of an order on its own scheduler and return their timesteps."""
        count = ability.steps(self.row, order.options)
        sigmas = None if scheduler.config.get("use_flow_sigmas") else numpy.linspace(1.0, 1 / count, count)
        given = {"sigmas": sigmas} if sigmas is not None else {"num_inference_steps": count}
        scheduler.set_timesteps(device=self.device, mu=self.shift(tokens, count), **given)
        scheduler.set_begin_index(0)
        return scheduler.timesteps

    def guidance_scale(self, order: Order) -> float:
        """Return how strongly the prompt guides an order."""
        return ability.guidance(self.row, order.options)

    def generator(self, order: Order) -> Any:
        """Return the order's own random generator; it is on the CPU, so every device gets the same noise."""
        return torch.Generator("cpu").manual_seed(order.seed % SEEDS)
