"""What makes the pixels: an engine turns an order into the bytes of an image.

The simplest engine has a name and `render`.  One that works on many orders at once, step by step, is a `LiveEngine`;
`fluxwerk.engines.threads` makes the first into the second, so that a server knows one kind only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from fluxwerk.catalog.rows import Model
from fluxwerk.errors import Fault
from fluxwerk.types import Json


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


@dataclass(frozen=True, slots=True)
class RenderProgress:
    """How far an image is: `share` from 0 to 1, and a small JPEG of what can be seen of it, if the engine makes one."""

    share: float
    preview: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Health:
    """How an engine is: loading, ready or degraded; `serving` says whether an order given now would be rendered."""

    word: str
    serving: bool
    details: Mapping[str, Json] = field(default_factory=dict[str, Json])


Report: TypeAlias = Callable[[RenderProgress], None]


class Abilities(Protocol):
    """What an engine says about itself before it is given anything to do."""

    def faults(self, order: Order) -> Sequence[Fault]:
        """Name everything in the order that the engine could not honour, field by field."""
        ...

    def facts(self, model: Model) -> Mapping[str, Json] | None:
        """Say as JSON what the engine honours of this model, or `None` if it does not serve it."""
        ...

    def health(self) -> Health:
        """Say how the engine is at this moment."""
        ...


class LiveEngine(Abilities, Protocol):
    """An engine that renders many orders at once, tells how far each is, and stops one when asked to."""

    name: str

    def open(self) -> AbstractAsyncContextManager[None]:
        """Keep whatever renders running for as long as the context lasts; it may still be loading when this enters."""
        ...

    async def paint(self, order: Order, report: Report) -> bytes:
        """Return the image file, exactly `width` by `height`; cancelling the task gives the order up.

        `report` is called on the event loop, whenever the image has come further.
        """
        ...


class FullAbilities:
    """The abilities of an engine that honours whatever the catalogue allows, and is ready at once."""

    def faults(self, order: Order) -> Sequence[Fault]:  # noqa: ARG002  (whatever it is)
        """Find nothing wrong."""
        return ()

    def facts(self, model: Model) -> Mapping[str, Json] | None:
        """Say that every option is honoured."""
        return {"honoured": list(model.options), "refused": {}, "without_effect": {}}

    def health(self) -> Health:
        """Be ready."""
        return Health("ready", serving=True)
