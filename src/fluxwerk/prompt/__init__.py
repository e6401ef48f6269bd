"""Prompts: advice on their wording, with mends; nothing here sends, reads a clock or refuses a request."""

from fluxwerk.prompt.advice import Advice, mend
from fluxwerk.prompt.lint import lint, lint_fields

__all__ = ["Advice", "lint", "lint_fields", "mend"]
