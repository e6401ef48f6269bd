"""Recipes for edits are good prompts once their slots are filled."""

from __future__ import annotations

import pytest

from fluxwerk import InvalidUsageError
from fluxwerk.prompt import get_recipe, lint, list_recipes, variables_of

RECIPES = list(list_recipes().values())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_filled_recipe_gets_no_advice(recipe):
    prompt = recipe.fill(**{name: "the old red car" for name, default in recipe.slots.items() if not default})
    rules = {advice.rule for advice in lint(prompt, "flux-kontext-pro", images=1)}
    # What is quoted is for the writer to keep short.
    assert rules <= {"font", "long-text"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_slots_are_those_of_the_text(recipe):
    assert set(recipe.slots) == set(variables_of(recipe.text))
    assert recipe.about


def test_a_default_can_be_replaced():
    assert "from behind" in get_recipe("relight").fill(light="candle light", direction="from behind")


@pytest.mark.parametrize(("slots", "field"), [({}, "light"), ({"light": "sun", "ligt": "moon"}, "ligt")])
def test_an_empty_or_unknown_slot_is_named(slots, field):
    with pytest.raises(InvalidUsageError) as raised:
        get_recipe("relight").fill(**slots)
    assert [fault.field for fault in raised.value.faults] == [field]


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(InvalidUsageError, match="relight"):
        get_recipe("relihgt")
