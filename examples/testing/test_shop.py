"""Tests with pytest: fluxwerk brings the fixtures."""

from __future__ import annotations

import urllib.request
from urllib.error import HTTPError

import pytest
from shop import picture

from fluxwerk import Client


def test_a_product_has_a_picture(fluxwerk_server, fluxwerk_requests):
    assert picture("a red mug")
    assert [(one.model, one.prompt) for one in fluxwerk_requests if one.method == "POST"] == [
        ("flux-2-klein-4b", "A studio photo of a red mug")
    ]


def test_a_product_that_is_moderated_has_none(fluxwerk_server, fluxwerk_trouble):
    fluxwerk_trouble(on="submit", do="moderate")
    assert picture("a red mug") is None


def test_a_busy_service_is_asked_again(fluxwerk_server, fluxwerk_trouble):
    fluxwerk_trouble(on="submit", do="status", status=429, first=1)
    assert picture("a red mug")


def test_a_link_that_was_stored_is_dead_after_ten_minutes(fluxwerk_server, fluxwerk_clock):
    with Client() as client:
        link = client.wait(client.submit("a red mug", width=256, height=256)).url
    fluxwerk_clock.turn(601)
    with pytest.raises(HTTPError, match="403"):
        urllib.request.urlopen(link)


@pytest.mark.parametrize("fluxwerk_server", [{"strict": True}], indirect=True)
def test_no_field_is_misspelt(fluxwerk_server):
    assert picture("a red mug")
