"""Thumbnails are small whatever the image is, and nothing is decoded that is no image."""

from __future__ import annotations

import base64
import io
import random

import pytest
from PIL import Image

from fluxwerk.mcp.thumbnail import LONGEST_BASE64, thumbnail
from support import images


@pytest.mark.parametrize("size", [(1024, 1024), (4096, 64), (1, 1)])
def test_a_thumbnail_of_noise_stays_within_its_bound(size, tmp_path):
    """Noise is what compresses worst."""
    file = tmp_path / "noise.png"
    noise = random.Random(0).randbytes(size[0] * size[1] * 3)
    Image.frombytes("RGB", size, noise).save(file)
    text = thumbnail(file)
    assert text is not None
    assert len(text) <= LONGEST_BASE64
    shown = Image.open(io.BytesIO(base64.b64decode(text)))
    assert shown.format == "JPEG"
    assert max(shown.size) <= 384


def test_what_is_no_image_or_too_large_has_none(tmp_path):
    for name, data in (("text.png", b"text"), ("giant.png", images.giant()), ("cut.png", images.png(64, 64)[:-20])):
        (tmp_path / name).write_bytes(data)
        assert thumbnail(tmp_path / name) is None
    assert thumbnail(tmp_path / "missing.png") is None
