"""The engines' interface: an engine turns an order into the bytes of an image file.

The simplest engine has a name and `render`.  One that works on many orders at once, step by step, is a `LiveEngine`;
`fluxwerk.engines.threads` makes the first into the second, so that a server handles one kind only.
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
    """A source image to change in part: what the mask marks, or what lies around the source.

    `source` and `mask` are whole image files. White in the mask is to be painted; without a mask everything outside
    the source is. `offset` is where the source's top left corner lies on the output, in pixels, and may be negative.
    """

    source: bytes = field(repr=False)
    mask: bytes | None = field(default=None, repr=False)
    offset: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Order:
    """One image to render: width and height in pixels, references as whole image files in their order.

    The maker of the order has measured every image in it; `options` are the model's own, such as steps.  An engine that
    passes the request on reads what the client itself wrote: `asked` holds those fields without prompt, images and
    webhook, and `names` the option of each reference.  `id` is the task's, empty where there is none.
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
    id: str = ""
    asked: Mapping[str, Json] = field(default_factory=dict[str, Json], repr=False)
    names: tuple[str, ...] = ()


class Engine(Protocol):
    """An engine that renders one order at a time; `name` reaches the receiver of the image."""

    name: str

    def render(self, order: Order) -> bytes:
        """Return the image file that the order asks for, exactly `width` by `height`, in its `output_format`."""
        ...


@dataclass(frozen=True, slots=True)
class RenderProgress:
    """The progress of an image: `share` from 0 to 1, and a small JPEG preview if the engine makes one.

    Where it `is_fetched`, the image is made elsewhere and on its way: its task needs no slot any more.
    """

    share: float
    preview: bytes | None = field(default=None, repr=False)
    is_fetched: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """The state of an engine: loading, ready or degraded; `serving` says whether it renders an order given now."""

    word: str
    serving: bool
    details: Mapping[str, Json] = field(default_factory=dict[str, Json])


# How many orders an engine is given at a time, unless it says otherwise.
CAPACITY = 64

Report: TypeAlias = Callable[[RenderProgress], None]


class OrderEndedError(Exception):
    """An engine ends an order without an image, as `word`, a status of the API, and its `details` say.

    `paid` says whether what the task costs by now stays booked.
    """

    def __init__(self, word: str, details: Json = None, *, paid: bool = False) -> None:
        super().__init__(word)
        self.word = word
        self.details = details
        self.paid = paid


class Abilities(Protocol):
    """What an engine says about itself before it gets an order."""

    def faults(self, order: Order) -> Sequence[Fault]:
        """Return one fault for each field of the order that the engine cannot honour."""
        ...

    def facts(self, model: Model) -> Mapping[str, Json] | None:
        """Return as JSON what the engine honours of this model, or `None` if it does not serve it."""
        ...

    def health(self) -> Health:
        """Return the present state of the engine."""
        ...


class LiveEngine(Abilities, Protocol):
    """An engine that renders many orders at once, reports the progress of each, and can stop one.

    `capacity` is how many orders it is given at a time; all others wait in the state.
    """

    name: str
    capacity: int

    def open(self) -> AbstractAsyncContextManager[None]:
        """Run the engine for as long as the context lasts; it may still be loading when the context begins."""
        ...

    async def paint(self, order: Order, report: Report) -> bytes:
        """Return the image file, exactly `width` by `height`; cancelling the task stops the order.

        Raises `OrderEndedError` if the order ends so without an image.  `report` is called on the event loop, whenever
        there is progress.
        """
        ...


class FullAbilities:
    """The abilities of an engine that honours all that the catalogue allows, and is ready at once."""

    capacity = CAPACITY

    def faults(self, order: Order) -> Sequence[Fault]:  # noqa: ARG002  (every order is honoured)
        """Return no fault."""
        return ()

    def facts(self, model: Model) -> Mapping[str, Json] | None:
        """Return every option of the model as honoured."""
        return {"honoured": list(model.options), "refused": {}, "without_effect": {}}

    def health(self) -> Health:
        """Return that the engine is ready."""
        return Health("ready", serving=True)
