"""An image that stands in the result itself is read, and a link is not taken for one."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from fluxwerk.protocol.sample import read_inline_image
from fluxwerk.testing.face_to_face import blank

IMAGE = blank(64, 64)


@pytest.mark.parametrize("head", ["data:image/png;base64,", "DATA:image/png;BASE64,", ""])
def test_an_image_in_the_result_itself_is_read(head):
    packed = base64.b64encode(IMAGE).decode()

    assert read_inline_image(head + packed) == IMAGE
    assert read_inline_image(head + packed.rstrip("=")) == IMAGE
    assert read_inline_image(head + "\r\n".join(packed[at : at + 76] for at in range(0, len(packed), 76))) == IMAGE
    assert read_inline_image(head + base64.urlsafe_b64encode(IMAGE).decode()) == IMAGE


def test_a_data_uri_may_be_written_in_percent():
    assert read_inline_image("data:image/png," + quote(IMAGE)) == IMAGE


@pytest.mark.parametrize("link", ["https://a/b.png", "/img/a.png", "aGVsbG8=", "", "http://x", "not base64!"])
def test_a_link_is_not_an_image_in_the_result(link):
    assert read_inline_image(link) is None


def test_a_data_uri_that_is_broken_holds_no_bytes():
    assert read_inline_image("data:image/png;base64,!!!") == b""
