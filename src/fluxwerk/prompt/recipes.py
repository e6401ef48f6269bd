"""Recipes: prompts for common edits, with slots to fill, read from `recipes.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from fluxwerk.catalog.rows import did_you_mean
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.prompt.variables import fill_in


@dataclass(frozen=True, slots=True)
class Recipe:
    """A prompt with slots; a slot whose default is empty has to be filled."""

    name: str
    about: str
    text: str
    slots: Mapping[str, str]

    def fill(self, **values: str) -> str:
        """Return the prompt; raises `InvalidUsageError` with every slot that is unknown or empty."""
        filled = {**self.slots, **values}
        faults = [
            Fault(name, None, f"is no slot of {self.name}; its slots are {', '.join(self.slots)}")
            for name in values
            if name not in self.slots
        ]
        faults += [
            Fault(name, None, f"must be filled for {self.name}") for name in self.slots if not filled[name].strip()
        ]
        if faults:
            raise InvalidUsageError(f"The recipe {self.name} cannot be filled:", faults=faults)
        return fill_in(self.text, filled)


def list_recipes() -> dict[str, Recipe]:
    """Return every recipe by name."""
    return dict(_recipes())


def get_recipe(name: str) -> Recipe:
    """Look up a recipe; raises `InvalidUsageError` with the nearest name."""
    known = _recipes()
    if name not in known:
        hint = did_you_mean(name, known)
        raise InvalidUsageError("", faults=[Fault("recipe", name, f"must be one of {', '.join(known)}", hint)])
    return known[name]


@cache
def _recipes() -> dict[str, Recipe]:
    import tomllib  # noqa: PLC0415  (only edits by recipe pay for it)
    from importlib.resources import files  # noqa: PLC0415

    rows = tomllib.loads(files("fluxwerk").joinpath("prompt/recipes.toml").read_text(encoding="utf-8"))
    return {name: Recipe(name, **row) for name, row in rows.items()}
