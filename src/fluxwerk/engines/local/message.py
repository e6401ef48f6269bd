"""The messages between the server's process and an engine process; all can be pickled, and none needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fluxwerk.engines import Order
from fluxwerk.engines.local.row import Row
from fluxwerk.types import Json


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process loads, on which device and how; `warm` is the side of the warm-up image, in pixels."""

    device: str
    rows: tuple[Row, ...]
    compiled: bool = False
    previews: bool = False
    budget: float | None = None
    warm: int = 64


@dataclass(frozen=True, slots=True)
class Render:
    """Render this order."""

    number: int
    order: Order


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop rendering this order."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The weights are loaded and warm; `facts` are for logs."""

    facts: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far an order is, from 0 to 1, and a small JPEG of it if previews are on."""

    number: int
    share: float
    preview: bytes | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The finished image file of an order."""

    number: int
    image: bytes


@dataclass(frozen=True, slots=True)
class RenderFailed:
    """An order cannot be rendered: the name of the error and its message."""

    number: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The weights cannot be loaded, and another attempt would fail too."""

    text: str


Command: TypeAlias = Render | Cancel
Reply: TypeAlias = Ready | Progressed | Done | RenderFailed | Broken
