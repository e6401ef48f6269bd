"""The rule on negations: FLUX reads "no people" as "people", so the prompt says what is there instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from fluxwerk.prompt.advice import Advice
from fluxwerk.prompt.draft import Draft

VERBS = r"(?:show|include|add|use|have|draw|put|make|contain|containing|showing|having|using|adding)"
NEGATION = re.compile(
    rf"(?<![\w-])(?:(?:--|with\s+)?no(?!\.|-)|without|avoid(?:ing)?|never|not|free\s+of|devoid\s+of|do\s+not|don['’]t)"
    rf"(?:\s+{VERBS})?(?:\s+(?:any|an|a|the|be|too))?\s+(?=(?P<thing>[\w'’-]+(?:\s+[\w'’-]+){{0,2}}))",
    re.IGNORECASE,
)
CHANGE = re.compile(
    r"(?P<link>,?\s*)\b(?:(?:do\s+not|don['’]t|never)\s+(?:change|alter|modify|touch|move|edit)"
    r"|without\s+(?:changing|altering|modifying|touching|moving|editing))\s+(?P<thing>[^,;.!?\n]*[^,;.!?\s])",
    re.IGNORECASE,
)
# What begins like a negation and is none.
IDIOMS = re.compile(
    r"(?:no|not|without)\s+(?:longer|only|just|doubt|matter|sooner|later|more\s+than|less\s+than)\b", re.IGNORECASE
)
LINK = re.compile(r"(?:(?:[,;]|\s)*\b(?:and|or|but|with))*[,;\s]*$", re.IGNORECASE)
STOPS = frozenset({"and", "or", "but", "in", "on", "at", "with", "of", "to", "from", "by", "for", "is", "are", "as"})


def negations(draft: Draft) -> Iterator[Advice]:
    """Find what should not be there, and say what could be there instead."""
    changes = list(draft.finds(CHANGE))
    for found in changes:
        begins = not draft.prompt[: found.start()].strip() or draft.prompt[: found.start()].endswith((".", "!", "?"))
        stays = f"{found['link']}Keep" if begins else ", keeping"
        message = f'"{found[0].lstrip(", ")}" names the change that should not happen; say what stays.'
        yield Advice("negation", message, *found.span(), f"{stays} {found['thing']} exactly the same")
    for found in draft.finds(NEGATION):
        inside = any(change.start() <= found.start() < change.end() for change in changes)
        if not inside and not IDIOMS.match(draft.prompt, found.start()):
            yield _negation(draft, found)


def _negation(draft: Draft, found: re.Match[str]) -> Advice:
    words = found["thing"].split()
    for count in range(len(words), 0, -1):
        say = swaps().get(" ".join(words[:count]).lower())
        if say:
            return _swap(draft, found, words[:count], say)
    kept = words[: next((at for at, word in enumerate(words) if word.lower() in STOPS and at), len(words))]
    end = _end(found, kept)
    what = draft.prompt[found.start() : end]
    return Advice(
        "negation", f'"{what}" names what should not be there; describe what is there instead.', found.start(), end
    )


def _swap(draft: Draft, found: re.Match[str], words: list[str], say: str) -> Advice:
    """Offer a phrase between commas, and take the words that tied the negation to the sentence with it."""
    end = _end(found, words)
    what = draft.prompt[found.start() : end]
    before = draft.prompt[: found.start()]
    link = LINK.search(before)
    start = link.start() if link else found.start()
    # After a full stop, and at the start of the prompt, the phrase begins a sentence.
    begins = not before[:start].strip() or before[:start].rstrip()[-1] in ".!?:"
    text = f"{before[start:]}{say[0].upper()}{say[1:]}" if begins and not before[start:].strip() else f", {say}"
    message = f'"{what}" names what should not be there; FLUX has no negative prompt. Say "{say}".'
    return Advice("negation", message, start, end, text)


def _end(found: re.Match[str], words: list[str]) -> int:
    """Return where these first words of the negated thing end."""
    pattern = r"\s+".join(re.escape(word) for word in words)
    kept = re.compile(pattern).match(found.string, found.start("thing"))
    assert kept
    return kept.end()


@cache
def swaps() -> dict[str, str]:
    """Return what to say instead, by what should not be there."""
    import tomllib  # noqa: PLC0415  (only prompts with a negation pay for it)
    from importlib.resources import files  # noqa: PLC0415

    tables = tomllib.loads(files("fluxwerk").joinpath("prompt/swaps.toml").read_text(encoding="utf-8"))
    return {word: row["say"] for rows in tables.values() for row in rows for word in row["words"]}
