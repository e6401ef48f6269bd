"""The rules on text that the image shows: in quotes, short, early, with a font, by a model and options that keep it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fluxwerk.prompt.advice import Advice
from fluxwerk.prompt.draft import WORD, Draft

# What comes after these words is shown in the image, up to the end of the run of capitals.
SAYING = re.compile(
    r"\b(?:says?|saying|reads?|reading|titled|labell?ed|lettered|(?:the|with)\s+(?:words?|text|title|headline|slogan))"
    r"[:,]?\s+(?P<text>[A-Z0-9][\w'’&-]*(?:(?:\s+(?:of|the|and|in|to|for))*\s+[A-Z0-9&][\w'’&-]*)*)"
)
CAPITALS = re.compile(r"\b[A-Z][A-Z'’&]{2,}(?:\s+[A-Z&][A-Z'’&]*)*\b")
ACRONYMS = frozenset({
    "HDR", "DSLR", "SLR", "RAW", "ISO", "LED", "RGB", "CMYK", "VHS", "USB", "UFO", "DNA", "SUV", "TV", "NASA", "NYC",
    "USA", "CCTV", "IMAX", "CGI", "BMW", "VR", "AI", "PNG", "JPEG", "UHD", "FLUX", "JSON", "HEX", "DVD", "POV", "MRI",
    "ATV", "GPS", "FPV", "OLED", "LCD", "CRT", "BBQ", "DJ", "RPG", "WWII",
})  # fmt: skip
FONTS = frozenset({
    "font", "typeface", "serif", "sans", "sans-serif", "script", "handwritten", "handwriting", "lettering",
    "typography", "bold", "italic", "condensed", "neon", "calligraphy", "stencil", "brush", "letters", "letterpress",
    "engraved", "embossed", "monospace", "slab", "gothic", "cursive", "painted", "chalk", "graffiti",
})  # fmt: skip
LONGEST_TEXT = 4
# Text that is named in the last part of a long prompt is often left out.
LATE, LONG_ENOUGH = 0.6, 25
TYPOGRAPHER = "flux-2-flex"


def lettering(draft: Draft) -> Iterator[Advice]:
    """Find text that the image should show and that the prompt does not say exactly."""
    if draft.is_json:
        return
    unquoted = list(_unquoted(draft))
    for start, end in unquoted:
        text = draft.prompt[start:end]
        message = f'{text} is not in quotes; the image shows exactly what is quoted: "{text}".'
        yield Advice("unquoted-text", message, start, end, f'"{text}"')
    yield from _shape(draft, list(draft.quoted))
    if draft.quoted or unquoted:
        yield from _style(draft, [*draft.quoted, *unquoted])


def _unquoted(draft: Draft) -> Iterator[tuple[int, int]]:
    taken: list[tuple[int, int]] = []
    for found in draft.finds(SAYING):
        taken.append(found.span("text"))
        yield found.span("text")
    for found in draft.finds(CAPITALS):
        words = found[0].split()
        shouted = any(word not in ACRONYMS for word in words) and "{{" not in draft.prompt[: found.start()][-3:]
        if shouted and not any(start <= found.start() < end for start, end in taken):
            yield found.span()


def _shape(draft: Draft, places: list[tuple[int, int]]) -> Iterator[Advice]:
    for start, end in places:
        count = len(WORD.findall(draft.prompt[start:end]))
        if count > LONGEST_TEXT:
            message = (
                f"The quoted text has {count} words; blocks of one to {LONGEST_TEXT}, each with its place, are kept."
            )
            yield Advice("long-text", message, start, end)
    if places and len(draft.words) >= LONG_ENOUGH and places[0][0] > LATE * len(draft.prompt):
        message = "The text stands late in the prompt; put it in the first sentence."
        yield Advice("late-text", message, *places[0])


def _style(draft: Draft, places: list[tuple[int, int]]) -> Iterator[Advice]:
    words = {word[0].lower() for word in draft.words if not draft.is_quoted(word.start())}
    where = min(places)
    if not words & FONTS:
        message = 'No font is named; say how the text looks and where it stands, as in "bold sans-serif at the top".'
        yield Advice("font", message, *where)
    if draft.model.family == "flux-2" and draft.model.name != TYPOGRAPHER:
        message = f"{draft.model.name} may misspell text; {TYPOGRAPHER} is made for it, with steps 50 and guidance 7."
        yield Advice("text-model", message, *where)


def exactness(draft: Draft) -> Iterator[Advice]:
    """Find prompts whose exact words prompt upsampling may rewrite."""
    exact = (
        "JSON" if draft.is_json else "quoted text" if draft.quoted else "colour codes" if "#" in draft.prompt else ""
    )
    if not exact:
        return
    known, given = draft.model.options, draft.options
    for name, off in (("prompt_upsampling", False), ("disable_pup", True)):
        if name in known:
            value = given.get(name)
            if (known[name].default if value is None else value) is not off:
                message = f"Prompt upsampling may rewrite the {exact}; set {name} to {str(off).lower()}."
                yield Advice("upsampling", message)
