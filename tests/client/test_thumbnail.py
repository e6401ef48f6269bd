"""Small copies are upright JPEGs of what was measured first."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from fluxwerk.client.thumbnail import thumbnail
from support.images import png


def test_a_copy_is_small_and_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.new("RGB", (600, 300)).save(turned, "JPEG", exif=exif)
    with Image.open(io.BytesIO(thumbnail(turned.getvalue(), 320))) as small:
        assert small.size == (160, 320)


@pytest.mark.parametrize("data", [b"", b"<html>", png(64, 64)[:60]])
def test_what_is_no_image_has_no_copy(data):
    assert thumbnail(data, 320) == b""


def test_an_image_that_claims_too_much_is_not_decoded():
    bomb = bytearray(png(8, 8))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    assert thumbnail(bytes(bomb), 320) == b""
