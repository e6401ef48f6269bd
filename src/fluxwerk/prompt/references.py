"""The rules on reference images: each is named by its number, none is out of range, and each has a role."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fluxwerk.prompt.advice import Advice
from fluxwerk.prompt.draft import Draft

MENTION = re.compile(
    r"\b(?:images?|references?|pictures?|photos?)\s*#?(?P<first>\d{1,2})\b(?:\s*(?:,|and|&)\s*\d{1,2}\b)*",
    re.IGNORECASE,
)
ORDINAL = re.compile(
    r"\b(?P<word>first|second|third|fourth|fifth|sixth|seventh|eighth)\s+(?:input\s+|reference\s+)?(?:image|picture|photo)\b",
    re.IGNORECASE,
)
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
ROLE = re.compile(
    r"\b(?:from|of|in|on|with|style|pose|outfit|background|environment|subject|person|face|lighting|palette|colou?rs?"
    r"|texture|logo|product|object|wearing|composition|layout|like|as|to|into)\b",
    re.IGNORECASE,
)


def references(draft: Draft) -> Iterator[Advice]:
    """Find numbers of images that are not there, images without a mention, and mentions without a role."""
    mentions = list(_mentions(draft))
    for number, start, end in mentions:
        if number == 0 or number > draft.images:
            have = {0: "has no images", 1: "has one image"}.get(draft.images, f"has {draft.images} images")
            message = f"{draft.prompt[start:end]} is out of range; the request {have}, counted from 1."
            yield Advice("reference-range", message, start, end)
        elif not ROLE.search(_sentence(draft, start, end)):
            message = (
                f'{draft.prompt[start:end]} has no role; say what comes from it, as in "the pose of image {number}".'
            )
            yield Advice("reference-role", message, start, end)
    if draft.images > 1:
        named = {number for number, _, _ in mentions}
        for number in range(1, draft.images + 1):
            if number not in named:
                yield Advice("reference-unused", f'image {number} is not mentioned; say what "image {number}" is for.')
    if draft.images > draft.model.references > 0:
        message = f"{draft.images} images; {draft.model.name} takes {draft.model.references}."
        yield Advice("reference-range", message)


def _mentions(draft: Draft) -> Iterator[tuple[int, int, int]]:
    for found in draft.finds(MENTION):
        for digits in re.finditer(r"\d+", found[0]):
            at = found.start() + digits.start()
            start = found.start() if digits.start() == found.start("first") - found.start() else at
            yield int(digits[0]), start, at + len(digits[0])
    for found in draft.finds(ORDINAL):
        # "The first image" of a text about photographs is no reference where there are none.
        if draft.images:
            yield ORDINALS.index(found["word"].lower()) + 1, found.start(), found.end()


def _sentence(draft: Draft, start: int, end: int) -> str:
    """Return the words around a mention, without the mention itself."""
    before, after = draft.prompt[:start], draft.prompt[end:]
    return re.split(r"[.!?;]\s", before)[-1] + " " + re.split(r"[.!?;]\s", after)[0]
