"""Step caching leaves steps out where a row asks for it, by how much is known, and whoever shares the pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

from fluxwerk.engines import Order
from fluxwerk.engines.local.loop import Loop
from fluxwerk.engines.local.weights import read
from fluxwerk.errors import InvalidUsageError
from support.painting import finish

FOX = Order("flux-2-dev", "a red fox", 7, 128, 128, options={"steps": 20, "guidance": 4.0})


@pytest.fixture
def caching(family):
    def made(name: str, threshold: float | None):
        first = family(name)
        return type(first)(first.pipe, replace(first.row, cache=threshold), "cpu", first.encoder)

    return made


def rendered(family, *orders: Order):
    orders = tuple(replace(order, model=family.row.model) for order in orders)
    return finish(Loop(budget=1e9), *(family.prepare(number, order) for number, order in enumerate(orders)))


@pytest.mark.parametrize("name", ["dev", "klein-base", "flux1-dev", "flux3-klein-base"])
def test_steps_are_left_out_at_a_small_error(caching, name: str) -> None:
    whole, cached = rendered(caching(name, None), FOX)[0], rendered(caching(name, 0.3), FOX)[0]
    assert len(whole.passes) == 20
    assert len(cached.passes) + cached.left_out == 20
    assert cached.left_out == 5
    error = float((whole.latents - cached.latents).abs().mean() / whole.latents.abs().mean())
    assert 0 < error < 0.02


def test_without_a_threshold_every_step_is_taken(family) -> None:
    assert rendered(family("dev"), FOX)[0].left_out == 0


def test_a_lower_threshold_leaves_out_no_more_steps(caching) -> None:
    counts = [rendered(caching("dev", threshold), FOX)[0].left_out for threshold in (1e-6, 0.01, 0.05, 0.9)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 5)


def test_what_is_left_out_does_not_depend_on_who_shares_the_pass(caching) -> None:
    dev = caching("dev", 0.3)
    (alone,) = rendered(dev, FOX)
    together = rendered(dev, FOX, replace(FOX, prompt="a blue whale", seed=8), replace(FOX, seed=9))[0]
    assert together.left_out == alone.left_out
    assert float((together.latents - alone.latents).abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [("klein", "cache = 0.1", "these weights are distilled"), ("dev", "cache = 1", "must be a number between 0 and 1")],
)
def test_a_threshold_that_makes_no_sense_is_refused(checkpoint, tmp_path, name: str, text: str, why: str) -> None:
    (tmp_path / "weights.toml").write_text(f'[weights.flux-2-dev]\npath = "{checkpoint(name)}"\n{text}')
    with pytest.raises(InvalidUsageError, match=why):
        read(str(tmp_path / "weights.toml"))
