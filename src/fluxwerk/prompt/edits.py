"""The rules on edits: one change at a time, what stays is said, and a fill describes what fills the mask."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fluxwerk.prompt.advice import Advice
from fluxwerk.prompt.draft import Draft

CHANGES = re.compile(
    r"\b(?:add|change|replace|remove|delete|erase|make|turn|put|swap|move|recolou?r|relight|convert|transform|enlarge"
    r"|shrink)\b",
    re.IGNORECASE,
)
KEEPS = re.compile(
    r"\b(?:keep|keeping|kept|preserv\w+|maintain\w*|same|unchanged|identical|intact|leave|leaving|retain\w*"
    r"|without\s+\w+ing|(?:not|don['’]t)\s+(?:change|alter|modify|touch|move|edit))\b",
    re.IGNORECASE,
)
# A whole new picture from references keeps nothing.
COMPOSES = re.compile(r"\bimages?\s*\d|\bstyle of\b", re.IGNORECASE)
ORDERS = re.compile(
    r"\s*(?:please\s+)?(?P<verb>remove|delete|erase|replace|change|fill|inpaint|paint|put|add)\b", re.IGNORECASE
)
PRONOUN = re.compile(r"\b(?:make|turn|change|transform|put)\s+(?P<pronoun>it|him|her|them|this|that)\b", re.IGNORECASE)
MOST_CHANGES = 2


def edits(draft: Draft) -> Iterator[Advice]:
    """Find edits that leave open what they change or what they keep."""
    if draft.is_fill:
        yield from _fill(draft)
        return
    if not draft.is_edit or draft.is_json:
        return
    changes = list(draft.finds(CHANGES))
    if len(changes) > MOST_CHANGES:
        message = (
            f"The prompt asks for {len(changes)} changes; one at a time, each from the last result, is more exact."
        )
        yield Advice("many-changes", message, *changes[MOST_CHANGES].span())
    if changes and not KEEPS.search(draft.prompt) and not (draft.images > 1 and COMPOSES.search(draft.prompt)):
        end = len(draft.prompt.rstrip())
        message = 'The prompt does not say what stays; add such as "keeping the face and the pose exactly the same".'
        yield Advice("keep", message, end, end)
    for found in draft.finds(PRONOUN):
        message = f'"{found["pronoun"]}" names nothing; name the object, as in "the red car".'
        yield Advice("pronoun", message, *found.span("pronoun"))


def _fill(draft: Draft) -> Iterator[Advice]:
    """Find orders: a fill shows what its prompt describes, inside the mask."""
    found = ORDERS.match(draft.prompt)
    if found:
        message = f'"{found["verb"]}" is an order; the prompt of a fill describes what is seen where the mask is white.'
        yield Advice("fill", message, *found.span("verb"))
