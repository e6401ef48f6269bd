"""The rules on wording: prose with a subject, light and a fitting length, without the spells of other generators."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fluxwerk.prompt.advice import Advice
from fluxwerk.prompt.draft import Draft
from fluxwerk.prompt.variables import VARIABLE

SPELLS = re.compile(
    r"(?:,\s*)?\b(?:masterpiece|best\s+quality|(?:ultra|highly|extremely|super|hyper)[\s-]?detailed|hyper[\s-]?realistic"
    r"|ultra[\s-]?realistic|(?:4|8|16)k(?:\s+(?:uhd|hdr|resolution|quality))?|uhd|trending\s+on\s+artstation|artstation"
    r"|award[\s-]winning|high\s+quality|best\s+resolution|(?:unreal|octane)\s+(?:engine\s*5?|render)|insanely\s+detailed)\b",
    re.IGNORECASE,
)
WEIGHTS = re.compile(r"\({1,4}(?P<text>[^()\n:]+):\s*\d+(?:\.\d+)?\){1,4}|\(\((?P<doubled>[^()\n]+)\)\)")
FLAGS = re.compile(r"\s*(?<!\S)--(?P<name>(?!no\b)[a-z]+)(?:\s+(?!--)[\w.:/]+)?", re.IGNORECASE)
LIGHT = re.compile(
    r"light|\blit\b|sun|shadow|glow|dawn|dusk|golden hour|blue hour|noon|midday|overcast|neon|candle|lamp|moon"
    r"|silhouette|morning|evening|twilight|bright|\bdim\b|flash|flame|fire|night|lantern|chiaroscuro",
    re.IGNORECASE,
)
CAMERA = re.compile(
    r"\d+\s?mm\b|\bf/?\d|lens|camera|bokeh|depth of field|close-up|macro|aerial|wide[- ]angle|telephoto|film\b|shot on"
    r"|kodak|fuji|leica|canon|nikon|hasselblad|polaroid|aperture|exposure|low angle|overhead",
    re.IGNORECASE,
)
PHOTO = re.compile(r"\bphoto|cinematic|portrait|film still|documentary", re.IGNORECASE)
STYLE_FIRST = re.compile(
    r"(?:(?:cinematic|photorealistic|realistic|minimalist|moody|dramatic|vintage|film grain|bokeh|soft light|macro"
    r"|golden hour|studio lighting|dramatic lighting|shallow depth of field|wide angle|\d+\s?mm(?:\s+lens)?"
    r"|f/?\d[\d.]*|shot on [\w\s]+?|depth of field|high contrast|muted colou?rs|black and white)\s*,\s*)+",
    re.IGNORECASE,
)
FRAGMENT = re.compile(r"[^,]+")
MOST_FRAGMENTS, LONGEST_FRAGMENT = 6, 3
# Words of a prompt that is neither thin nor diluted.  klein has no prompt upsampling, so it needs more and takes less.
SHORTEST, LONGEST, KLEIN_SHORTEST, KLEIN_LONGEST = 30, 80, 40, 70
MOST_TOKENS, TOKENS_PER_WORD = 512, 1.35


def spells(draft: Draft) -> Iterator[Advice]:
    """Find words of quality that say nothing about the picture, weights in brackets, and flags."""
    for found in draft.finds(SPELLS):
        what = found[0].lstrip(", ")
        message = f'"{what}" shows nothing; say what can be seen, such as texture, light and lens.'
        # At the start of the prompt the comma behind it goes as well.
        tail = (
            re.compile(r"\s*,\s*").match(draft.prompt, found.end())
            if not draft.prompt[: found.start()].strip()
            else None
        )
        yield Advice("spell", message, found.start(), tail.end() if tail else found.end(), "")
    for found in draft.finds(WEIGHTS):
        text = (found["text"] or found["doubled"]).strip()
        message = f"{found[0]} is the weight of another generator; FLUX reads prose. Put what matters first."
        yield Advice("weight", message, found.start(), found.end(), text)
    for found in draft.finds(FLAGS):
        hint = {"ar": " Give width and height instead.", "seed": " Give seed."}.get(found["name"].lower(), "")
        message = f"{found[0].strip()} is a flag of another generator.{hint}"
        yield Advice("flag", message, *found.span(), "")


def prose(draft: Draft) -> Iterator[Advice]:
    """Find lists of keywords, prompts that begin with the style, and prompts of an unfitting length."""
    if draft.is_json or draft.is_fill:
        return
    fragments = [len(found[0].split()) for found in FRAGMENT.finditer(draft.prompt)]
    if (
        len(fragments) >= MOST_FRAGMENTS
        and sum(count <= LONGEST_FRAGMENT for count in fragments) > len(fragments) * 0.7
    ):
        yield Advice(
            "keywords", "This is a list of keywords; FLUX follows sentences that say how things belong together."
        )
    first = STYLE_FIRST.match(draft.prompt)
    if first and first.end() < len(draft.prompt):
        message = "The style comes before the subject; what stands first counts most."
        yield Advice("late-subject", message, 0, first.end(), None)
    yield from _length(draft)


def _length(draft: Draft) -> Iterator[Advice]:
    count = len(draft.words)
    shortest, longest = (KLEIN_SHORTEST, KLEIN_LONGEST) if "klein" in draft.model.name else (SHORTEST, LONGEST)
    if count * TOKENS_PER_WORD > MOST_TOKENS:
        tokens = round(count * TOKENS_PER_WORD)
        yield Advice(
            "length", f"{count} words are about {tokens} tokens; {draft.model.name} reads the first {MOST_TOKENS}."
        )
    elif count > longest:
        yield Advice("length", f"{count} words; {draft.model.name} follows {shortest} to {longest} best.")
    elif count < shortest and not draft.is_edit and not _is_upsampled(draft):
        said = (
            "has no prompt upsampling, so it shows only what is said"
            if "klein" in draft.model.name
            else "invents the rest"
        )
        yield Advice("length", f"{count} words; {draft.model.name} {said}. {shortest} to {longest} words work best.")


def _is_upsampled(draft: Draft) -> bool:
    known = draft.model.options
    if "disable_pup" in known:
        return not draft.options.get("disable_pup")
    given = draft.options.get("prompt_upsampling")
    return (
        bool(known["prompt_upsampling"].default if given is None else given) if "prompt_upsampling" in known else False
    )


def picture(draft: Draft) -> Iterator[Advice]:
    """Find pictures without light, and photographs without a camera for a model that follows one."""
    unreadable = draft.is_json and draft.scene is None
    if draft.is_edit or draft.is_fill or unreadable or not draft.words:
        return
    if not LIGHT.search(draft.prompt):
        yield Advice("light", 'No light is named; it decides the mood: "soft window light from the left", "at dusk".')
    if draft.model.name == "flux-2-max" and PHOTO.search(draft.prompt) and not CAMERA.search(draft.prompt):
        yield Advice(
            "camera", 'flux-2-max follows camera, lens and film closely; name them, as in "85mm, f/2, Kodak Portra".'
        )


def variables(draft: Draft) -> Iterator[Advice]:
    """Find variables that nobody has filled."""
    for found in VARIABLE.finditer(draft.prompt):
        message = f"{found[0]} is not filled; a template gets its values from a table."
        yield Advice("variable", message, found.start(), found.end())
