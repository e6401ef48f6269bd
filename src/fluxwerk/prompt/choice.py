"""The choice of a model for a wish in words: a recommendation with reasons and an estimated price, not a rule."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from fluxwerk.catalog import prices
from fluxwerk.catalog.rows import get_model
from fluxwerk.catalog.sizes import Size
from fluxwerk.errors import UnknownPriceError
from fluxwerk.prompt.draft import QUOTED

USUAL = "flux-2-pro"
USUAL_REASON = "it is the default for production: good quality at a moderate price"
# Text in quotes speaks for the typographer as loudly as the word "poster".
TYPOGRAPHER, QUOTED_POINTS = "flux-2-flex", 3
QUOTED_REASON = "the wish quotes text that the image shows, and this model is made for it"


@dataclass(frozen=True, slots=True)
class Hint:
    """Words that speak for a model; `needs` is `images` or `mask` where the model works on them only."""

    model: str
    points: int
    words: re.Pattern[str]
    why: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model with the reasons for it, and the estimate in credits, `None` if the price is not public."""

    model: str
    reasons: tuple[str, ...]
    estimate: Decimal | None


def choose(
    wish: str, *, width: int = 1024, height: int = 1024, images: Sequence[Size] = (), mask: bool = False, most: int = 3
) -> list[Choice]:
    """Recommend models for a wish, the best first: `choose("a poster for a festival")`.

    `images` are the sizes of the images to work on, and `mask` says whether one of them has a mask.
    """
    points: dict[str, int] = {USUAL: 1}
    reasons: dict[str, list[str]] = {}
    for model, weight, why in _spoken(wish, images=bool(images), mask=mask):
        points[model] = points.get(model, 0) + weight
        reasons.setdefault(model, []).append(why)
    reasons.setdefault(USUAL, [USUAL_REASON])
    ranked = sorted(points, key=lambda name: -points[name])
    return [Choice(name, tuple(reasons[name]), _estimate(name, width, height, images)) for name in ranked[:most]]


def _spoken(wish: str, *, images: bool, mask: bool) -> Iterator[tuple[str, int, str]]:
    if QUOTED.search(wish):
        yield TYPOGRAPHER, QUOTED_POINTS, QUOTED_REASON
    plain = QUOTED.sub(" ", wish)
    there = {"": True, "images": images or mask, "mask": mask}
    for hint in _hints():
        found = hint.words.search(plain)
        if found and there[hint.needs]:
            yield hint.model, hint.points, f'you say "{found[0].lower()}": {hint.why}'


def _estimate(name: str, width: int, height: int, images: Sequence[Size]) -> Decimal | None:
    row = get_model(name)
    sized = "width" in row.options
    try:
        return prices.estimate(row, width if sized else None, height if sized else None, images)
    except UnknownPriceError:
        return None


@cache
def _hints() -> tuple[Hint, ...]:
    import tomllib  # noqa: PLC0415  (only a choice pays for it)
    from importlib.resources import files  # noqa: PLC0415

    rows = tomllib.loads(files("fluxwerk").joinpath("prompt/choices.toml").read_text(encoding="utf-8"))["hint"]
    return tuple(
        Hint(
            row["model"],
            row["points"],
            re.compile(rf"\b(?:{row['words']})\b", re.IGNORECASE),
            row["why"],
            row.get("needs", ""),
        )
        for row in rows
    )
