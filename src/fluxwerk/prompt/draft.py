"""A prompt as the rules see it: its words, its quoted texts, and the request that it is part of."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fluxwerk.catalog.rows import Model
from fluxwerk.types import Json

QUOTED = re.compile(r"\"[^\"\n]+\"|“[^”\n]+”|«[^»\n]+»|„[^“”\n]+[“”]|(?<!\w)'[^'\n]+'(?!\w)|(?<!\w)‘[^’\n]+’(?!\w)")
WORD = re.compile(r"[\w'’-]+")
CLAUSE_END = re.compile(r"[,;.!?\n]")


@dataclass(frozen=True)
class Draft:
    """A prompt for a model, with how many reference images and which options go with it."""

    prompt: str
    model: Model
    images: int = 0
    options: Mapping[str, Json] = field(default_factory=dict[str, Json])

    @cached_property
    def is_json(self) -> bool:
        """Whether the prompt is meant as JSON, whole or broken."""
        return self.prompt.lstrip().startswith("{") and not self.prompt.lstrip().startswith("{{")

    @cached_property
    def scene(self) -> Json:
        """The JSON value of the prompt, or `None`."""
        try:
            return json.loads(self.prompt) if self.is_json else None
        except (ValueError, RecursionError):
            return None

    @cached_property
    def quoted(self) -> tuple[tuple[int, int], ...]:
        """The places of quoted texts; in JSON, as in the rows behind a caption for FLUX 3, the quotes are syntax."""
        return (
            ()
            if self.is_json or '[{"' in self.prompt
            else tuple(found.span() for found in QUOTED.finditer(self.prompt))
        )

    @cached_property
    def words(self) -> tuple[re.Match[str], ...]:
        """Every word with its place."""
        return tuple(WORD.finditer(self.prompt))

    @property
    def is_edit(self) -> bool:
        """Whether the request changes images that it holds."""
        return self.images > 0 or self.model.family == "flux-kontext"

    @property
    def is_fill(self) -> bool:
        """Whether the request repaints what a mask covers."""
        return "mask" in self.model.options

    def is_quoted(self, at: int) -> bool:
        """Whether a place is inside a quoted text."""
        return any(start <= at < end for start, end in self.quoted)

    def finds(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Find a pattern in what is not quoted."""
        return (found for found in pattern.finditer(self.prompt) if not self.is_quoted(found.start()))

    @cached_property
    def clause_ends(self) -> tuple[int, ...]:
        """Where clauses end that are not quoted: at commas and stops."""
        return tuple(found.start() for found in self.finds(CLAUSE_END))

    def clause(self, at: int) -> tuple[int, int]:
        """Return the place of the clause, between commas and stops, around a position."""
        number = bisect_left(self.clause_ends, at)
        start = self.clause_ends[number - 1] + 1 if number else 0
        return start, self.clause_ends[number] if number < len(self.clause_ends) else len(self.prompt)
