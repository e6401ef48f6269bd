"""What the server's process and an engine's process say to each other; all of it can be pickled, none needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fluxwerk.engines import Order
from fluxwerk.engines.local.weights import Row
from fluxwerk.types import Json


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process is to load, where, and how it is to work; `warm` is the side of the first image, in pixels."""

    device: str
    rows: tuple[Row, ...]
    compiled: bool = False
    previews: bool = False
    budget: float | None = None
    warm: int = 64


@dataclass(frozen=True, slots=True)
class Paint:
    """Please render this order."""

    number: int
    order: Order


@dataclass(frozen=True, slots=True)
class Cancel:
    """Please give this order up."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The weights are loaded and warm; `facts` are for people."""

    facts: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True)
class Came:
    """An order has come so far, from 0 to 1; perhaps with a small JPEG of it."""

    number: int
    share: float
    preview: bytes | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """Here is the image file."""

    number: int
    picture: bytes


@dataclass(frozen=True, slots=True)
class RenderFailed:
    """An order cannot be rendered: the name of the error and what it says."""

    number: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The weights cannot be loaded, and trying again would not help."""

    text: str


Asked: TypeAlias = Paint | Cancel
Said: TypeAlias = Ready | Came | Done | RenderFailed | Broken
