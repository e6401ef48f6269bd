"""One piece of advice on a prompt: the place, what is wrong there, and a mend where one is safe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advice:
    """What a rule says about `prompt[start:end]`; an empty place speaks of the whole prompt.

    `mend` is the text to put there instead, `None` where only the writer can know it.
    """

    rule: str
    message: str
    start: int = 0
    end: int = 0
    mend: str | None = None

    def quote(self, prompt: str) -> str:
        """Return the words that the advice is about."""
        return prompt[self.start : self.end]


def mend(prompt: str, advice: Iterable[Advice]) -> str:
    """Put every mend into the prompt; of two that overlap the earlier one."""
    parts: list[str] = []
    at = 0
    for one in sorted(advice, key=lambda one: (one.start, one.end)):
        if one.mend is not None and one.start >= at:
            parts += [prompt[at : one.start], one.mend]
            at = one.end
    return "".join([*parts, prompt[at:]])
