"""What the loop asks of a family of weights; each family answers with its pipeline's own methods."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from PIL import Image

from fluxwerk.engines import Order
from fluxwerk.engines.local import ability
from fluxwerk.engines.local.canvas import fitted
from fluxwerk.engines.local.foreign import Pipeline, Tensor, numpy, torch
from fluxwerk.engines.local.sample import Sample, Text
from fluxwerk.engines.local.text import Encoder, shorten
from fluxwerk.engines.local.weights import Row

# Seeds beyond the generator's range wrap around.
SEEDS = 2**64


class Family(ABC):
    """One loaded pipeline as the loop sees it: orders become drafts, drafts take steps, drafts become pictures.

    Nothing about the shapes of one generation of FLUX is assumed outside the subclasses.
    """

    def __init__(self, pipe: Pipeline, row: Row, device: str = "cpu", encoder: Encoder | None = None) -> None:
        self.pipe = pipe
        self.row = row
        self.device = device
        # A part that is moved to the GPU for each call carries a hook, which its inside alone would not have.
        self.shortened = encoder is None and row.offload is None and shorten(pipe, self.encode)
        self.encoder = encoder or Encoder(self.encode)

    @property
    def transformer(self) -> Any:
        """The model that denoises."""
        return self.pipe.transformer

    @property
    def width(self) -> int:
        """How wide the transformer is, from which the cost of a token follows."""
        return int(self.transformer.inner_dim)

    @abstractmethod
    def encode(self, prompt: str) -> Text:
        """Run the text encoder."""

    @abstractmethod
    def admit(self, number: int, order: Order) -> Sample:
        """Make a draft of an order: encode its prompt and images, draw its noise, lay out its steps."""

    @abstractmethod
    def develop(self, draft: Sample) -> Image.Image:
        """Turn the latents of a finished draft into a picture of its working size."""

    @abstractmethod
    def shift(self, tokens: int, steps: int) -> float:
        """Say how far the schedule of steps is shifted for an image of so many tokens."""

    @abstractmethod
    def unpacked(self, draft: Sample, latents: Tensor) -> Tensor:
        """Return latents as the VAE knows them: (1, channels, height, width)."""

    def predict(self, drafts: Sequence[Sample]) -> Tensor:
        """Return the velocities, (drafts, tokens, channels), in one forward pass whatever step each draft is at."""
        first = drafts[0]
        velocity = self.run(drafts, [draft.text for draft in drafts])
        if first.negative is not None:
            other = self.run(drafts, [draft.negative for draft in drafts if draft.negative])
            scale = torch.tensor([draft.guidance for draft in drafts], dtype=velocity.dtype, device=velocity.device)
            velocity = other + scale.view(-1, 1, 1) * (velocity - other)
        return velocity

    def run(self, drafts: Sequence[Sample], texts: Sequence[Text]) -> Tensor:
        """Run the transformer once."""
        first = drafts[0]
        more = {} if texts[0].pooled is None else {"pooled_projections": torch.cat([text.pooled for text in texts])}
        found = self.transformer(
            hidden_states=torch.cat([draft.seen() for draft in drafts]).to(self.transformer.dtype),
            timestep=self.times(drafts),
            guidance=self.guidances(drafts),
            encoder_hidden_states=torch.cat([text.embeds for text in texts]),
            txt_ids=texts[0].ids,
            img_ids=first.ids,
            return_dict=False,
            **more,
        )[0]
        return found[:, : first.latents.shape[1]]

    def times(self, drafts: Sequence[Sample]) -> Tensor:
        """Return how noisy each draft is, from 1 to 0: each its own, which is why they can share a pass."""
        return torch.stack([draft.timesteps[draft.step] for draft in drafts]).to(drafts[0].latents.dtype) / 1000

    def guidances(self, drafts: Sequence[Sample]) -> Tensor | None:
        """Return the guidance of each draft if the transformer takes it in, else nothing."""
        if not self.transformer.config.guidance_embeds:
            return None
        return torch.tensor([draft.guidance for draft in drafts], dtype=torch.float32, device=self.device)

    def advance(self, draft: Sample, velocity: Tensor) -> None:
        """Take one step along the velocity, (1, tokens, channels)."""
        time = draft.timesteps[draft.step]
        draft.estimate = draft.latents - velocity * (time / 1000).to(velocity.dtype)
        draft.latents = draft.scheduler.step(velocity, time, draft.latents, return_dict=False)[0]
        draft.step += 1

    def picture(self, draft: Sample) -> Image.Image:
        """Return the finished picture, exactly as large as it was ordered."""
        painted = self.develop(draft)
        if draft.patch is not None:
            return draft.patch.finish(painted)
        return fitted(painted, (draft.order.width, draft.order.height))

    def own(self, pipe: Pipeline = None) -> Pipeline:
        """Return a copy of the pipeline with a schedule of its own: the weights are shared, the state is not."""
        own = copy.copy(pipe or self.pipe)
        own.scheduler = copy.deepcopy(self.pipe.scheduler)
        return own

    def schedule(self, scheduler: Any, tokens: int, order: Order) -> Tensor:
        """Lay out the steps of an order on its own scheduler and return their times."""
        count = ability.steps(self.row, order.options)
        sigmas = None if scheduler.config.get("use_flow_sigmas") else numpy.linspace(1.0, 1 / count, count)
        given = {"sigmas": sigmas} if sigmas is not None else {"num_inference_steps": count}
        scheduler.set_timesteps(device=self.device, mu=self.shift(tokens, count), **given)
        scheduler.set_begin_index(0)
        return scheduler.timesteps

    def strength(self, order: Order) -> float:
        """Say how strongly an order is guided."""
        return ability.guidance(self.row, order.options)

    def chance(self, order: Order) -> Any:
        """Return the order's own generator; on the CPU, so that every device draws the same noise."""
        return torch.Generator("cpu").manual_seed(order.seed % SEEDS)
