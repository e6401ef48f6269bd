"""The latents of every family are those of the installed stock pipeline, whoever shares the forward pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

from support.equality import CASES, Case, crowded, difference, ours, stock

# Latents reach from -6 to 6; one step of a pixel's 255 is about a hundredth.
BOUND = 1e-5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_latents_are_those_of_the_stock_pipeline(family, checkpoint, case: Case) -> None:
    latents = stock(checkpoint(case.checkpoint), case)
    assert difference(ours(family(case.checkpoint), case), latents) <= BOUND


@pytest.mark.parametrize("case", CASES, ids=str)
def test_latents_do_not_depend_on_who_shares_the_pass(family, case: Case) -> None:
    loaded = family(case.checkpoint)
    assert difference(crowded(loaded, case), ours(loaded, case).latents) <= BOUND


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.references or (not case.canvas and "guid" in case.what)], ids=str
)
def test_what_a_case_is_about_has_an_effect(family, case: Case) -> None:
    """Without its references, or with other guidance, a case gives other latents by far more than the bound."""
    loaded = family(case.checkpoint)
    options = {**case.options, "guidance": 9.0} if not case.references else case.options
    other = ours(loaded, replace(case, references=0, options=options))
    assert difference(ours(loaded, case), other.latents) > 100 * BOUND
