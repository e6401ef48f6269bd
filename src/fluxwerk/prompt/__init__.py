"""Prompts: advice with mends, a builder, variables, recipes for edits, and the choice of a model.

Nothing here sends, reads a clock or refuses a request.
"""

from fluxwerk.prompt.advice import Advice, mend
from fluxwerk.prompt.build import build
from fluxwerk.prompt.choice import Choice, choose
from fluxwerk.prompt.colours import name_of
from fluxwerk.prompt.lint import lint, lint_fields
from fluxwerk.prompt.recipes import Recipe, get_recipe, list_recipes
from fluxwerk.prompt.scene import SCHEMA, flatten, minify
from fluxwerk.prompt.variables import combine, expand, fill_in, variables_of

__all__ = [
    "SCHEMA",
    "Advice",
    "Choice",
    "Recipe",
    "build",
    "choose",
    "combine",
    "expand",
    "fill_in",
    "flatten",
    "get_recipe",
    "lint",
    "lint_fields",
    "list_recipes",
    "mend",
    "minify",
    "name_of",
    "variables_of",
]
