"""Foreign images into pixels: turned upright by the same reading that measures them."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageOps

from fluxwerk.engines.codec import decode
from fluxwerk.imagefile import measure

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF tiff:Orientation="6"></rdf:RDF></x:xmpmeta>'


def photo(kind: str, orientation: int) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.linear_gradient("L").resize((48, 32)).rotate(30).convert("RGB").save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_decoded_as_a_viewer_shows_it(kind: str, orientation: int) -> None:
    data = photo(kind, orientation)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")

    assert decode(data).tobytes() == shown.tobytes()
    assert decode(data).size == measure(data).upright


def test_an_orientation_in_xmp_alone_turns_neither_the_size_nor_the_pixels() -> None:
    file = io.BytesIO()
    Image.new("RGB", (48, 32)).save(file, "JPEG", xmp=XMP)

    assert measure(file.getvalue()).upright == (48, 32)
    assert decode(file.getvalue()).size == (48, 32)
