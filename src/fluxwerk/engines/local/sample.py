"""A picture in the making: everything that belongs to one order, and to no other."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluxwerk.engines import Order
from fluxwerk.engines.local.canvas import Patch
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.group import price

if TYPE_CHECKING:
    from fluxwerk.engines.local.family import Family


@dataclass(slots=True)
class Text:
    """An encoded prompt: embeddings (1, tokens, width), their positions (tokens, axes), and CLIP's summary if any."""

    embeds: Tensor
    ids: Tensor
    pooled: Tensor | None = None


@dataclass(slots=True)
class Kept:
    """What of a source must stay while the rest is painted, in latents: its own, the noise upon it, and the mask."""

    latents: Tensor
    noise: Tensor
    mask: Tensor


@dataclass(slots=True)
class Sample:
    """One order between its first and its last step.

    `latents` are (1, tokens, channels); `beside` are reference tokens that are looked at and never changed, `channels`
    more channels of each token; `ids` are the positions of the tokens and of those beside; `shape` holds every size
    that the positions follow from.
    """

    number: int
    order: Order
    family: Family
    text: Text
    latents: Tensor
    ids: Tensor
    shape: tuple[tuple[int, int], ...]
    scheduler: Any
    timesteps: Tensor
    guidance: float
    negative: Text | None = None
    beside: Tensor | None = None
    channels: Tensor | None = None
    kept: Kept | None = None
    patch: Patch | None = None
    cache: Any = None
    estimate: Tensor | None = None
    step: int = 0
    passes: list[int] = field(default_factory=list[int])
    fault: Exception | None = None

    @property
    def steps(self) -> int:
        """How many steps it takes in all."""
        return len(self.timesteps)

    @property
    def is_done(self) -> bool:
        """Whether it needs no further step, for good or for bad."""
        return self.fault is not None or self.step >= self.steps

    @property
    def key(self) -> Hashable:
        """Name the group whose drafts may share a forward pass.

        Positions are passed once for all of them, so a portrait and a landscape of as many tokens stay apart.
        """
        return (
            id(self.family),
            self.shape,
            self.text.embeds.shape[1],
            self.negative is None,
            self.cache is None,
            self.beside is None,
        )

    @property
    def tokens(self) -> int:
        """How many tokens a forward pass sees of it."""
        beside = 0 if self.beside is None or self.cache is not None else self.beside.shape[1]
        return int(self.latents.shape[1] + beside + self.text.embeds.shape[1])

    @property
    def price(self) -> float:
        """Say what one step of it costs, in tokens of a short sequence."""
        passes = 1 if self.negative is None else 2
        return passes * price(self.tokens, self.family.width)

    def seen(self) -> Tensor:
        """Return what the transformer sees of it: (1, tokens and those beside, channels)."""
        tokens = self.latents
        if self.beside is not None and self.cache is None:
            tokens = torch.cat([tokens, self.beside], dim=1)
        return tokens if self.channels is None else torch.cat([tokens, self.channels], dim=2)
