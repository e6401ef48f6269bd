"""All rules on one prompt: advice in the order of the text, never a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from fluxwerk.catalog.rows import Model, get_model
from fluxwerk.prompt import colours, edits, lettering, negation, references, scene, wording
from fluxwerk.prompt.advice import Advice
from fluxwerk.prompt.draft import Draft
from fluxwerk.types import Json

Rule = Callable[[Draft], Iterator[Advice]]
RULES: tuple[Rule, ...] = (
    scene.scenes,
    wording.variables,
    negation.negations,
    lettering.lettering,
    lettering.exactness,
    colours.codes,
    colours.loose,
    references.references,
    edits.edits,
    wording.spells,
    wording.prose,
    wording.picture,
)
# What is longer is no prompt that a model reads, and some rules take time that grows with its square.
MOST_CHARACTERS = 10_000
TYPICAL_LIMIT = 2_000


def lint(
    prompt: str, model: str | Model, *, images: int = 0, options: Mapping[str, Json] | None = None
) -> list[Advice]:
    """Give advice on a prompt for a model, with this number of reference images and these options.

    Raises `UnknownModelError` only; whatever the advice, the prompt may be sent as it is.
    """
    row = get_model(model)
    if row.options and "prompt" not in row.options:
        return []
    if len(prompt) > MOST_CHARACTERS:
        return [Advice("length", f"{len(prompt)} characters; {row.name} reads about the first {TYPICAL_LIMIT}.")]
    draft = Draft(prompt, row, images, options or {})
    found = [advice for rule in RULES for advice in rule(draft)]
    # What is about the whole prompt comes last.
    return sorted(found, key=lambda advice: (advice.start == advice.end, advice.start, advice.end))


def lint_fields(model: str | Model, fields: Mapping[str, Json]) -> list[Advice]:
    """Give advice on the prompt of a request, whose fields also tell its images and options."""
    prompt, row = fields.get("prompt"), get_model(model)
    if not isinstance(prompt, str) or not prompt.strip():
        return []
    given = [fields.get(name) for name in row.reference_names()]
    images = sum(len(cast("list[Json]", value)) if isinstance(value, list) else 1 for value in given if value)
    return lint(prompt, row, images=images, options=fields)
