"""How a task ends when no engine is asked: by a magic prompt, as test cards end payments, or by scripted trouble.

The list stands in docs/reference/server.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fluxwerk.types import Json

REASONS = ("Violence",)
MAGIC = re.compile(r"fluxwerk:([a-z-]+)(?:=([^\n;]+))?")


@dataclass(frozen=True, slots=True)
class Ending:
    """A last status and its details; `paid` says whether the credits stay booked, no `word` that it never comes."""

    word: str
    details: Json = field(default=None)
    paid: bool = False


FOREVER = Ending("")


def moderated(stage: str, reasons: tuple[str, ...] = REASONS) -> Ending:
    """End as moderation does, at the stage "request" (unpaid: nothing was made) or "content" (paid: it was made)."""
    words = list(reasons) or list(REASONS)
    return Ending(f"{stage.capitalize()} Moderated", {"Moderation Reasons": words}, paid=stage == "content")


def failed(code: str = "internal_error", message: str = "asked for by the test") -> Ending:
    """End in an error with one of the guide's codes."""
    return Ending("Error", {"error": code, "message": message})


CANCELLED = failed("cancelled", "cancelled by its owner")
INPUTS_LOST = failed(
    message="the server stopped before the image was safe, and the images it was to be made of are lost"
)


def asked_for(prompt: str) -> Ending | None:
    """Read the ending that a magic prompt asks for, or `None` for every other prompt."""
    for name, said in MAGIC.findall(prompt):
        if name in ("request-moderated", "content-moderated"):
            reasons = tuple(reason.strip() for reason in said.split(",") if reason.strip())
            return moderated(name.removesuffix("-moderated"), reasons)
        if name in FIXED:
            return FIXED[name]
    return None


FIXED = {
    "error": failed(),
    "timeout": failed("generation_timeout"),
    "invalid-image": failed("invalid_image"),
    "not-found": Ending("Task not found"),
    "pending-forever": FOREVER,
}
