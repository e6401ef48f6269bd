"""Colours by hex code: their names, and the rules on codes that FLUX cannot tie to anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from fluxwerk.prompt.advice import Advice
from fluxwerk.prompt.draft import WORD, Draft

NAMES = {
    "white": "#FFFFFF", "ivory": "#FFFFF0", "cream": "#FFF5DC", "beige": "#E8DCC4", "sand": "#D9C29A",
    "light grey": "#D3D3D3", "silver": "#C0C0C0", "grey": "#808080", "slate grey": "#5F6B7A", "charcoal": "#36454F",
    "black": "#000000", "red": "#FF0000", "brick red": "#C0392B", "crimson": "#DC143C", "dark red": "#8B0000",
    "burgundy": "#800020", "coral": "#FF7F50", "salmon": "#FA8072", "orange": "#FF8C00", "burnt orange": "#CC5500",
    "peach": "#FFDAB9", "brown": "#8B4513", "chocolate brown": "#4E2E1E", "tan": "#D2B48C", "gold": "#D4AF37",
    "yellow": "#FFFF00", "golden yellow": "#FFC300", "mustard yellow": "#E1AD01", "lime green": "#BFFF00",
    "green": "#008000", "bright green": "#00D000", "emerald green": "#2ECC71", "forest green": "#228B22",
    "dark green": "#013220", "olive green": "#808000", "sage green": "#9CAF88", "mint green": "#B5EAD7",
    "teal": "#008080", "turquoise": "#40E0D0", "cyan": "#00FFFF", "sky blue": "#87CEEB", "light blue": "#ADD8E6",
    "azure blue": "#3498DB", "blue": "#0000FF", "royal blue": "#4169E1", "navy blue": "#0A1F44",
    "indigo": "#4B0082", "purple": "#800080", "violet": "#8F00FF", "lavender": "#C8A2E8", "plum": "#8E4585",
    "magenta": "#FF00FF", "hot pink": "#FF69B4", "pink": "#FFC0CB", "rose": "#E8637A",
}  # fmt: skip
COLOUR_WORDS = frozenset(word for name in NAMES for word in name.split()) | {"gray", "scarlet", "maroon", "amber"}
SIGNALS = frozenset({"color", "colour", "colored", "coloured", "hex", "in", "painted", "tinted", "is", "are", "of"})
TAGGED = re.compile(r"#[0-9A-Za-z]+")
HEX = re.compile(r"#[0-9A-Fa-f]{6}")
BARE = re.compile(
    r"\b(?:(?:hex|colou?r)(?:\s+code)?:?\s+(?P<digits>[0-9A-Fa-f]{6})|0x(?P<c>[0-9A-Fa-f]{6}))\b", re.IGNORECASE
)
RGB = re.compile(r"\brgb\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)", re.IGNORECASE)
MOST_COLOURS = 5
SHORT, WITH_ALPHA = 4, 9
BRIGHTEST = 255


def name_of(code: str) -> str:
    """Return the nearest name that people use for a colour such as `#C0392B`."""
    wanted = _oklab(code)
    return min(NAMES, key=lambda name: sum((a - b) ** 2 for a, b in zip(wanted, _oklab(NAMES[name]), strict=True)))


def codes(draft: Draft) -> Iterator[Advice]:
    """Find colour codes that are malformed, or written in another form than `#RRGGBB`."""
    for found in draft.finds(TAGGED):
        code = found[0]
        if not HEX.fullmatch(code) and _is_meant_as_code(code):
            yield _malformed(found.start(), found.end(), code, _repaired(code))
    for found in draft.finds(BARE):
        digits = found["digits"] or found["c"]
        at = found.start("digits") if found["digits"] else found.start()
        yield _malformed(at, found.end(), found.string[at : found.end()], f"#{digits.upper()}")
    for found in draft.finds(RGB):
        parts = [int(part) for part in found.groups()]
        mended = "#" + "".join(f"{part:02X}" for part in parts) if max(parts) <= BRIGHTEST else None
        yield _malformed(found.start(), found.end(), found[0], mended)


def loose(draft: Draft) -> Iterator[Advice]:
    """Find codes without a name or an object, too many of them, and gradients with one end."""
    found = [match for match in draft.finds(HEX) if TAGGED.fullmatch(match.string, match.start(), match.end())]
    if not draft.is_json:
        for code in found:
            yield from _unbound(draft, code)
    distinct = {code[0].upper() for code in found}
    if len(distinct) > MOST_COLOURS:
        last = found[-1]
        message = f"The prompt has {len(distinct)} colour codes; three to five are kept apart reliably."
        yield Advice("many-colours", message, last.start(), last.end())


def _unbound(draft: Draft, code: re.Match[str]) -> Iterator[Advice]:
    start, end = draft.clause(code.start())
    before = [word[0].lower() for word in WORD.finditer(draft.prompt, start, code.start())]
    after = [word[0].lower() for word in WORD.finditer(draft.prompt, code.end(), end)]
    where = code.start(), code.end()
    near = {*before[-3:], *after[:2]}
    if not near & COLOUR_WORDS:
        text = f"{name_of(code[0])} {code[0]}"
        yield Advice("unnamed-colour", f'{code[0]} has no name; say "{text}".', *where, text)
    things = [word for word in before + after if word not in COLOUR_WORDS | SIGNALS and not word.isdigit()]
    if not things or (not (set(before) | set(after[:2])) & (SIGNALS | {"gradient", "to"}) and len(things) > 2):  # noqa: PLR2004
        message = f'{code[0]} is tied to no object; say what has it, as in "the mug is color {code[0]}".'
        yield Advice("loose-colour", message, *where)
    if "gradient" in before + after and len(list(HEX.finditer(draft.prompt, start, end))) == 1:
        yield Advice("gradient", f"A gradient has two ends: from {code[0]} to which colour?", *where)


def _malformed(start: int, end: int, code: str, mended: str | None) -> Advice:
    return Advice("malformed-colour", f"{code} is not a colour of the form #RRGGBB.", start, end, mended)


def _is_meant_as_code(code: str) -> bool:
    digits = code[1:]
    if digits.isdigit() and len(digits) < SHORT - 1:
        return False  # "the #1 shop"
    return any(sign.isdigit() for sign in digits) or digits.isupper()


def _repaired(code: str) -> str | None:
    if not re.fullmatch(r"#[0-9A-Fa-f]+", code):
        return None
    if len(code) == SHORT:
        return "#" + "".join(sign * 2 for sign in code[1:]).upper()
    return code[:-2].upper() if len(code) == WITH_ALPHA else None


def _oklab(code: str) -> tuple[float, float, float]:
    """Place a colour where distances are those that people see (Ottosson's Oklab)."""
    red, green, blue = (_linear(int(code[at:to], 16) / BRIGHTEST) for at, to in pairwise((1, 3, 5, 7)))
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4  # noqa: PLR2004  (sRGB's curve)
