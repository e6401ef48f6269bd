"""`fluxwerk choose` and the recipes of `fluxwerk edit`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group

IMAGE = "https://images.test/a.png"


def fluxwerk(*words):
    return CliRunner().invoke(group, [str(word) for word in words])


def test_a_model_is_recommended_with_price_and_reason():
    done = fluxwerk("choose", "a poster for a festival")
    assert done.stdout.splitlines()[:2] == [
        "1. flux-2-flex: about 5 credits ($0.05) an image",
        '   you say "poster": it is made for text in the image, and takes steps and guidance',
    ]


def test_json_holds_the_same():
    done = fluxwerk("choose", "sharpen it", "-i", "512x512", "--json")
    first = json.loads(done.stdout.splitlines()[0])
    assert (first["model"], first["estimated_cost"]) == ("flux-tools-deblur", None)


def test_a_recipe_makes_the_prompt():
    done = fluxwerk("edit", "--recipe", "relight", "--set", "light=candle light", "-i", IMAGE, "--dry-run", "--json")
    assert json.loads(done.stdout)["body"]["prompt"].startswith(
        "Relight the scene with candle light coming from the left"
    )


def test_the_recipes_are_listed_with_their_slots():
    done = fluxwerk("edit", "--recipes")
    assert done.exit_code == 0
    assert "slots: light, direction (from the left)" in done.stdout


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--set", "light=x"], "name one with --recipe"),
        (["a prompt", "--recipe", "relight"], "takes the place of the prompt"),
        (["--recipe", "relight", "--set", "light"], "SLOT=TEXT"),
        (["--recipe", "relight"], "light"),
    ],
)
def test_a_recipe_that_cannot_be_filled_is_explained(words, wrong):
    done = fluxwerk("edit", *words, "-i", IMAGE, "--dry-run")
    assert done.exit_code == 2
    assert wrong in done.stderr
