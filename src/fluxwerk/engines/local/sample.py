"""A sample: one order between its first and its last step, with everything that belongs to it alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from fluxwerk.engines import Order
from fluxwerk.engines.local.canvas import Patch
from fluxwerk.engines.local.foreign import Pipeline, Tensor, torch
from fluxwerk.engines.local.group import price
from fluxwerk.engines.local.row import Row
from fluxwerk.engines.local.text import Text


class Denoiser(Protocol):
    """What steps a sample and decodes it: the family of weights that prepared it."""

    pipe: Pipeline
    row: Row
    device: str

    @property
    def width(self) -> int:
        """The width of the transformer, from which the cost of a token follows."""
        ...

    def adapt(self, samples: Sequence[Sample]) -> None:
        """Make the next pass use the LoRAs of these samples."""
        ...

    def predict(self, samples: Sequence[Sample]) -> Tensor:
        """Return the velocities of several samples from one forward pass."""
        ...

    def advance(self, sample: Sample, velocity: Tensor) -> None:
        """Take one step along the velocity."""
        ...

    def unpack(self, sample: Sample, latents: Tensor) -> Tensor:
        """Return latents in the layout of the VAE."""
        ...

    def finish(self, sample: Sample) -> Image.Image:
        """Return the finished image."""
        ...

    def finish_in_tiles(self, sample: Sample) -> Image.Image:
        """Return the finished image with less memory."""
        ...


@dataclass(slots=True)
class Preserved:
    """What must stay while the rest is repainted, in latents: the source's own, the noise over it, and the mask."""

    latents: Tensor
    noise: Tensor
    mask: Tensor


@dataclass(slots=True)
class Sample:
    """One order between its first and its last step.

    `latents` are (1, tokens, channels); `reference_tokens` are read and never changed; `extra_channels` are appended
    to each token; `ids` are the positions of the tokens and of the reference tokens; `shape` holds every size from
    which the positions follow.
    """

    number: int
    order: Order
    family: Denoiser
    text: Text
    latents: Tensor
    ids: Tensor
    shape: tuple[tuple[int, int], ...]
    scheduler: Any
    timesteps: Tensor
    guidance: float
    negative: Text | None = None
    reference_tokens: Tensor | None = None
    extra_channels: Tensor | None = None
    preserved: Preserved | None = None
    patch: Patch | None = None
    cache: Any = None
    velocity: Tensor | None = None
    left_out: int = 0
    estimate: Tensor | None = None
    step: int = 0
    passes: list[int] = field(default_factory=list[int])
    fault: Exception | None = None

    @property
    def steps(self) -> int:
        """The number of steps in all."""
        return len(self.timesteps)

    @property
    def is_done(self) -> bool:
        """Whether it needs no further step, because it is finished or has failed."""
        return self.fault is not None or self.step >= self.steps

    @property
    def key(self) -> Hashable:
        """The key of the group whose samples may share a forward pass.

        Positions are passed once for the whole group, so a portrait and a landscape with equally many tokens differ.
        """
        return (
            id(self.family),
            self.shape,
            self.text.embeds.shape[1],
            self.negative is None,
            self.cache is None,
            self.reference_tokens is None,
        )

    @property
    def tokens(self) -> int:
        """The number of tokens in a forward pass."""
        references = 0 if self.reference_tokens is None or self.cache is not None else self.reference_tokens.shape[1]
        return int(self.latents.shape[1] + references + self.text.embeds.shape[1])

    @property
    def price(self) -> float:
        """The cost of one step, in tokens of a short sequence."""
        passes = 1 if self.negative is None else 2
        return passes * price(self.tokens, self.family.width)

    def model_input(self) -> Tensor:
        """Return the transformer's input: (1, tokens and reference tokens, channels)."""
        tokens = self.latents
        if self.reference_tokens is not None and self.cache is None:
            tokens = torch.cat([tokens, self.reference_tokens], dim=1)
        return tokens if self.extra_channels is None else torch.cat([tokens, self.extra_channels], dim=2)
