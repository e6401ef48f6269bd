"""What the command line says of an image that is saved."""

from __future__ import annotations

import pytest

from fluxwerk.cli.console import sentence
from fluxwerk.types import is_flux

FACTS = {
    "file": "a.png",
    "model": "flux-2-pro",
    "seed": 5,
    "width": 64,
    "height": 64,
    "estimated_cost": None,
    "cost": None,
    "charged": True,
    "seconds": 1.0,
}


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("upstream", "64×64, model"),
        ("offline", "64×64, made by the offline engine, not by FLUX; model"),
        ("unknown", "64×64, made by an unknown engine; model"),
    ],
)
def test_the_line_about_an_image_says_who_made_it_unless_it_was_flux(engine, said):
    assert said in sentence({**FACTS, "engine": engine, "is_flux": is_flux(engine)})
