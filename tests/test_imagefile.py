"""Image bytes: measured from their header, and believed only when they are all there."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fluxwerk import imagefile
from fluxwerk.imagefile import fault, measure

KINDS = {
    "png": ("PNG", {}, "image/png"),
    "jpeg": ("JPEG", {}, "image/jpeg"),
    "progressive": ("JPEG", {"progressive": True}, "image/jpeg"),
    "lossy webp": ("WEBP", {"lossless": False}, "image/webp"),
    "lossless webp": ("WEBP", {"lossless": True}, "image/webp"),
    "extended webp": ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, "image/webp"),
}


@cache
def picture(kind, width=80, height=48):
    """A picture with enough in it that a cut is a loss."""
    codec, options, _ = KINDS[kind]
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    file = io.BytesIO()
    image.save(file, codec, **options)
    return file.getvalue()


def jpeg_with(*segments, scan=b"\1\2\3\xff\0\4", end=b"\xff\xd9"):
    """A JPEG by hand: the segments, a frame of 64 by 32, a scan, an end."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 32, 64, 1) + b"\1\x11\0"
    return (
        b"\xff\xd8" + b"".join(segments) + frame + b"\xff\xda" + struct.pack(">H", 8) + b"\1\1\0\0\x3f\0" + scan + end
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_measured_and_found_whole(kind):
    data = picture(kind)

    assert measure(data) == imagefile.Raster(KINDS[kind][2], 80, 48)
    assert measure(data).size == (80, 48)
    assert fault(data) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_picture_that_is_cut_off_is_not_whole(kind, kept):
    data = picture(kind, 640, 400)

    assert fault(data[: int(len(data) * kept)]) == "it is cut off or damaged"


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_lacks_its_last_two_bytes_is_not_whole(kind):
    assert fault(picture(kind)[:-2]) == "it is cut off or damaged"


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_png_with_any_byte_changed_is_noticed(at, change):
    data = bytearray(picture("png"))
    data[at % len(data)] ^= change

    assert fault(bytes(data)) is not None


@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damaged_files_are_judged_and_never_raise(kind, data):
    whole = bytearray(picture(kind))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])

    found = measure(damaged)

    assert fault(damaged) is not None or found is not None


@given(
    st.sampled_from(
        [b"", imagefile.PNG_SIGNATURE, b"\xff\xd8\xff", b"RIFF\x10\0\0\0WEBPVP8 ", b"RIFF\x10\0\0\0WEBPVP8L"]
    ),
    st.binary(max_size=200),
)
@example(b"\xff\xd8\xff", b"\xe0\0\0")
@example(b"\xff\xd8\xff", b"\xff" * 30)
def test_arbitrary_bytes_are_judged_and_never_raise(head, tail):
    found = measure(head + tail)

    assert found is None or found.width >= 0
    assert isinstance(fault(head + tail), str) or found is not None


def test_nothing_is_empty():
    assert fault(b"") == "it is empty"


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>503", b"\n <html><body>Sign in", b"<HTML>"])
def test_a_web_page_is_called_by_its_name(page):
    assert fault(page) == "it is a web page, not an image"


@pytest.mark.parametrize("data", [b"GIF89a" + bytes(40), b"%PDF-1.7", b'{"detail":"Not Found"}'])
def test_another_type_is_no_image(data):
    assert measure(data) is None
    assert fault(data) == "it is no image"


def test_an_image_without_pixels_is_refused():
    head = b"IHDR" + struct.pack(">IIBBBBB", 0, 7, 8, 0, 0, 0, 0)
    data = imagefile.PNG_SIGNATURE + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))

    assert fault(data) == "it has no pixels"


def test_a_png_must_begin_with_its_header():
    assert measure(imagefile.PNG_SIGNATURE + bytes(8) + struct.pack(">II", 64, 64)) is None


def test_a_jpeg_is_measured_behind_bare_markers_and_fill_bytes():
    assert measure(jpeg_with(b"\xff\x01", b"\xff\xff\xff\xd0")).size == (64, 32)


def test_a_jpeg_whose_scan_comes_before_any_frame_is_no_image():
    assert measure(b"\xff\xd8\xff\xda\0\x02" + bytes(20)) is None


def test_a_jpeg_whose_segments_lead_nowhere_is_no_image():
    assert measure(b"\xff\xd8\xff\xe0\0\x04\1\1" + bytes(20)) is None


def test_a_jpeg_without_a_scan_is_not_whole():
    frame_only = jpeg_with().partition(b"\xff\xda")[0]

    assert measure(frame_only).size == (64, 32)
    assert fault(frame_only) == "it is cut off or damaged"
    assert fault(frame_only + bytes(9)) == "it is cut off or damaged"


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg():
    thumbnail = b"\xff\xe1" + struct.pack(">H", 14) + b"Exif\0\0\xff\xd8\xff\xd9\0\0"

    assert fault(jpeg_with(thumbnail)) is None
    assert fault(jpeg_with(thumbnail, scan=b"", end=b"")) == "it is cut off or damaged"


def test_a_film_behind_a_jpeg_does_no_harm():
    assert fault(jpeg_with() + b"\0\0\0\x18ftypmp42" + bytes(5000)) is None


def test_the_smallest_webp_is_measured():
    smallest = bytes.fromhex("52494646120000005745425056503 84c060000002f416c6f006b".replace(" ", ""))

    assert measure(smallest) == imagefile.Raster("image/webp", 1 + (0x6C41 & 0x3FFF), 1 + (0x006F6C41 >> 14 & 0x3FFF))


@pytest.mark.parametrize("kind", [b"VP8L", b"VP8 ", b"ICCP"])
def test_a_webp_without_a_picture_in_front_is_no_image(kind):
    assert measure(b"RIFF\x40\0\0\0WEBP" + kind + bytes(60)) is None


def test_a_webp_header_that_is_cut_off_is_no_image():
    assert measure(picture("lossy webp")[:29]) is None
    assert measure(picture("lossless webp")[:24]) is None


def exif(orientation: int, order: str = "<") -> bytes:
    """The smallest EXIF block that turns a picture, after a tag of no interest."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    entries = [struct.pack(order + "HHII", 0x0100, 3, 1, 7), struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)]
    return head + struct.pack(order + "H", 2) + b"".join(entries) + b"\0" * 4


def turned(kind: str, orientation: int, order: str = "<") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, kind, exif=b"Exif\0\0" + exif(orientation, order))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_lies_on_its_side_is_measured_as_a_viewer_shows_it(kind, order, orientation):
    data = turned(kind, orientation, order)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert imagefile.upright(data) == shown.size == ((30, 40) if orientation > 4 else (40, 30))
    assert imagefile.measure(data).size == (40, 30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_without_exif_stands_as_it_is(kind):
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, kind)
    assert imagefile.upright(file.getvalue()) == (40, 30)


def test_what_is_no_picture_has_no_upright_size():
    assert imagefile.upright(b"no picture") is None


@given(st.binary(max_size=60), st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_no_exif_makes_measuring_stumble(block, kind):
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, kind, exif=b"Exif\0\0" + block)
    assert sorted(imagefile.upright(file.getvalue())) == [30, 40]


@given(st.integers(0, 400))
def test_a_picture_that_is_cut_off_anywhere_is_measured_or_not(length):
    for kind in ("PNG", "JPEG", "WEBP"):
        assert imagefile.upright(turned(kind, 6)[:length]) in (None, (40, 30), (30, 40))


def test_exif_that_says_nothing_of_an_orientation_turns_nothing():
    block = exif(6)[:8] + struct.pack("<H", 1) + struct.pack("<HHII", 0x0100, 3, 1, 7) + b"\0" * 4
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG", exif=block)
    assert imagefile.upright(file.getvalue()) == (40, 30)


def wrapped(data: bytes, end: str = "\n", at: int = 76) -> str:
    text = base64.b64encode(data).decode()
    return end.join(text[start : start + at] for start in range(0, len(text), at))


@pytest.mark.parametrize(
    "text",
    [
        wrapped(bytes(range(256))),
        wrapped(bytes(range(256)), "\r\n"),
        "  " + wrapped(bytes(range(256)), "\n\t ") + "\r\n ",
        "data:image/png;base64," + wrapped(bytes(range(256))),
        " data:image/png;\r\n base64,\r\n" + wrapped(bytes(range(256)), "\r\n") + "\n",
        "DATA:image/png;charset=utf-8;Base64," + wrapped(bytes(range(256))),
    ],
    ids=["LF", "CRLF", "blanks", "data URI", "wrapped data URI", "capitals"],
)
def test_base64_is_read_however_a_tool_wraps_it(text):
    assert imagefile.read_base64(text) == bytes(range(256))


@given(st.binary(max_size=300), st.integers(1, 90), st.sampled_from(["\n", "\r\n", " ", ""]))
def test_whatever_is_encoded_and_wrapped_is_read_again(data, at, end):
    assert imagefile.read_base64(wrapped(data, end, at)) == data
    assert imagefile.read_base64(f"data:image/webp;base64,{wrapped(data, end, at)}") == data


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CANARY!", "the text is not base64"),
        ("CANARYä", "the text is not base64"),
        ("data:image/png;base64,CANARY!", "the text is not base64"),
        ("data:image/png;base64", "a data URI must be base64: data:image/png;base64,…"),
        ("data:image/png,CANARY", "a data URI must be base64: data:image/png;base64,…"),
        ("data:" + "a" * 300 + ";base64,AAAA", "a data URI must be base64: data:image/png;base64,…"),
    ],
)
def test_what_is_not_base64_is_refused_without_repeating_it(text, reason):
    with pytest.raises(ValueError, match="base64") as caught:
        imagefile.read_base64(text)

    assert str(caught.value) == reason


def test_a_data_uri_is_known_by_its_scheme_alone():
    assert imagefile.is_data_uri("\n Data:,")
    assert not imagefile.is_data_uri("database.png")
