"""What makes the pixels: an engine turns an order into the bytes of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fluxwerk.exchange import Json


@dataclass(frozen=True, slots=True)
class Canvas:
    """A source image to change in part: what is under the mask, or what lies around the source.

    `source` and `mask` are whole image files. White in the mask is to be painted; without a mask everything outside
    the source is. `offset` is where the source's top left corner lies on the output, in pixels, and may be negative.
    """

    source: bytes = field(repr=False)
    mask: bytes | None = field(default=None, repr=False)
    offset: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Order:
    """What an engine is asked for: width and height in pixels, references as whole image files in their order.

    Every image in it has been measured by whoever made the order; `options` are the model's own, such as steps.
    """

    model: str
    prompt: str
    seed: int
    width: int
    height: int
    output_format: str = "png"
    references: tuple[bytes, ...] = field(default=(), repr=False)
    canvas: Canvas | None = None
    options: Mapping[str, Json] = field(default_factory=dict[str, Json])


class Engine(Protocol):
    """Anything that renders; `name` is told to whoever receives the image."""

    name: str

    def render(self, order: Order) -> bytes:
        """Return the image file that the order asks for, exactly `width` by `height`, in its `output_format`."""
        ...
