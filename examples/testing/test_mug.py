"""A test with a cassette: `pytest --fluxwerk-record test_mug.py` once, with a key, and then without one."""

from __future__ import annotations


def test_a_red_mug_was_drawn_by_flux(fluxwerk_cassette):
    with fluxwerk_cassette.client() as client:
        assert client.generate("a red mug", width=256, height=256, seed=7).content_type == "image/jpeg"
