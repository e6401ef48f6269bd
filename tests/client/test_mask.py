"""Masks: white or transparent is repainted, the log says which, and a useless one is refused before it is paid."""

from __future__ import annotations

import base64
import io
import logging
import struct
import subprocess
import sys

import pytest
from PIL import Image

from fluxwerk.catalog.images import inspect
from fluxwerk.catalog.rows import Model, get_model
from fluxwerk.client.inputs import EncodedImage, attach, compose
from fluxwerk.client.mask import Mask, read_mask
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.testing.face_to_face import blank

FILL, ERASE, NEW = get_model("fill"), get_model("erase"), Model("new", "/v1/new")
SIZE = (400, 300)
MIDDLE = (100, 80, 300, 220)
PHOTO = Image.linear_gradient("L").resize(SIZE).convert("RGB")


def png(image, **options):
    file = io.BytesIO()
    image.save(file, options.pop("kind", "PNG"), **options)
    return file.getvalue()


def layer(mode, back, front):
    image = Image.new(mode, SIZE, back)
    image.paste(front, MIDDLE)
    return image


def cut(image):
    """The image with a transparent hole in its middle."""
    holed = image.convert("RGBA")
    holed.paste((0, 0, 0, 0), MIDDLE)
    return holed


BLACK_WHITE = layer("L", 0, 255)
OPENAI = layer("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))
STROKES = layer("RGBA", (0, 0, 0, 0), (255, 255, 255, 255))


def read(image, mask_is=None, model=FILL, **options):
    data = png(image, **options)
    return read_mask(data, inspect("mask", data, model), model, mask_is)


def sent(image, mask_is=None, **options):
    mask = read(image, mask_is, **options)
    assert isinstance(mask, Mask), str(mask)
    return Image.open(io.BytesIO(mask.data)).convert("L")


def refusal(image, mask_is=None, model=FILL, **options):
    fault = read(image, mask_is, model, **options)
    assert isinstance(fault, Fault)
    return str(fault)


@pytest.mark.parametrize("image", [BLACK_WHITE, BLACK_WHITE.convert("RGB"), BLACK_WHITE.convert("P")])
def test_a_mask_without_transparency_repaints_white(image, caplog):
    """A mask without transparency is sent unchanged, and its white part is repainted."""
    with caplog.at_level(logging.INFO, "fluxwerk"):
        mask = read(image)

    assert (mask.data, mask.reading) == (png(image), "white")
    assert caplog.messages == ["mask: what is white is repainted, 23 % of the image"]


@pytest.mark.parametrize(
    "image", [OPENAI, cut(PHOTO), layer("LA", (0, 255), (0, 0))], ids=["black", "photograph", "grey and alpha"]
)
def test_of_a_mask_with_a_hole_the_hole_is_repainted(image, caplog):
    with caplog.at_level(logging.WARNING, "fluxwerk"):
        mask = read(image)

    assert mask.reading == "transparent"
    assert Image.open(io.BytesIO(mask.data)).tobytes() == BLACK_WHITE.tobytes()
    rewritten = "sent as black and white (mask_is, or --mask-is, chooses another reading)"
    assert caplog.messages == [f"mask: what is transparent is repainted, 23 % of the image; {rewritten}"]


@pytest.mark.parametrize("model", [FILL, ERASE])
def test_what_is_white_and_transparent_needs_a_word(model):
    for image in (STROKES, cut(Image.new("RGB", SIZE, "white"))):
        assert "can be read in two ways" in refusal(image, model=model)
        assert "mask_is must say" in refusal(image, model=model)


def test_a_word_decides_what_is_white_and_transparent():
    assert sent(STROKES, "white").tobytes() == BLACK_WHITE.tobytes()
    assert sent(cut(Image.new("RGB", SIZE, "white")), "transparent").tobytes() == BLACK_WHITE.tobytes()


def test_black_and_white_decide_where_only_a_border_is_transparent():
    image = BLACK_WHITE.convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 10, 10))

    assert read(image).reading == "white"
    assert sent(image).tobytes() == BLACK_WHITE.tobytes()


def test_a_mask_of_sixteen_bits_is_read():
    image = Image.new("I;16", SIZE, 0)
    image.paste(65535, MIDDLE)

    assert read(image).reading == "white"


def test_a_mask_that_lies_on_its_side_is_rewritten_upright():
    exif = Image.Exif()
    exif[0x0112] = 6

    assert sent(OPENAI, exif=exif).size == (300, 400)


@pytest.mark.parametrize("model", [FILL, ERASE, NEW])
@pytest.mark.parametrize("mask_is", [None, "white", "transparent"])
def test_a_mask_that_marks_nothing_is_refused(model, mask_is):
    assert "marks nothing" in refusal(Image.new("L", SIZE, 0), mask_is, model)
    assert "marks nothing" in refusal(Image.new("RGBA", SIZE, (0, 0, 0, 255)), mask_is, model)


def test_what_a_jpeg_leaves_of_black_marks_nothing():
    assert "marks nothing" in refusal(Image.new("L", SIZE, 6), kind="JPEG")


@pytest.mark.parametrize("model", [FILL, ERASE, NEW])
def test_a_mask_that_marks_everything_is_refused(model):
    assert "marks everything" in refusal(Image.new("L", SIZE, 255), model=model)
    assert "marks everything" in refusal(Image.new("RGBA", SIZE, (0, 0, 0, 0)), model=model)


def test_with_a_prompt_a_mask_may_mark_everything():
    """Where a prompt describes the new content, a mask may mark the whole image on purpose."""
    white = Image.new("L", SIZE, 255)

    assert read(white, "white", FILL) == Mask(png(white), "white")
    assert read(white, "white", NEW) == Mask(png(white), "white")
    assert "marks everything" in refusal(white, "white", ERASE)


def test_a_mask_that_cannot_be_decoded_is_refused():
    data = png(BLACK_WHITE, kind="WEBP")
    broken = data[:30] + bytes(len(data) - 30)

    assert "cannot be decoded" in str(attach(broken, "mask", FILL))


def test_a_mask_with_a_false_size_in_its_header_is_not_decoded():
    """A mask whose header gives a false size is refused before it is decoded."""
    data = png(BLACK_WHITE, kind="JPEG")
    small = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 300, 300, 1) + b"\1\x11\0"

    assert "another size than its header says" in str(attach(data[:2] + small + data[2:], "mask", FILL))


def test_a_request_carries_the_rewritten_mask_and_no_mask_is():
    options = {"image": png(PHOTO), "mask": png(OPENAI), "mask_is": "transparent"}

    request = compose(FILL, "a lake", options=options)

    assert set(request.fields) == {"prompt", "image", "mask"}
    assert Image.open(io.BytesIO(base64.b64decode(request.fields["mask"]))).tobytes() == BLACK_WHITE.tobytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask_is": "black", "mask": png(BLACK_WHITE)}, 'must be "transparent" or "white"'),
        ({"mask_is": "white"}, "needs a mask"),
        ({"mask_is": "transparent", "mask": "https://example.com/mask.png"}, "needs the mask as a file"),
    ],
)
def test_mask_is_goes_with_a_mask_that_the_client_can_read(options, said):
    with pytest.raises(InvalidUsageError) as caught:
        compose(FILL, "a lake", options={"image": png(PHOTO.convert("RGBA")), **options})

    assert [fault.field for fault in caught.value.faults] == ["mask_is"]
    assert said in str(caught.value)


def test_a_url_may_be_said_to_be_white():
    url = "https://example.com/mask.png"
    options = {"image": png(PHOTO), "mask": url, "mask_is": "white"}

    assert compose(FILL, "a lake", options=options).fields["mask"] == url


def test_where_nothing_may_be_rewritten_a_mask_with_a_hole_is_refused():
    assert isinstance(attach(png(BLACK_WHITE), "mask", FILL, as_it_is=True), EncodedImage)
    assert "must be black and white" in str(attach(png(OPENAI), "mask", FILL, as_it_is=True))
    assert "marks nothing" in str(attach(blank(300, 300), "mask", FILL, as_it_is=True))


WITHOUT_PILLOW = """
import sys
sys.modules["PIL"] = None
from fluxwerk.catalog.rows import get_model
from fluxwerk.client.inputs import attach
for mask_is in (None, "white", "transparent"):
    print(attach(sys.argv[1], "mask", get_model("fill"), mask_is=mask_is))
"""


def test_without_pillow_a_mask_is_sent_unread_with_a_warning(tmp_path):
    (tmp_path / "mask.png").write_bytes(png(OPENAI))
    command = [sys.executable, "-c", WITHOUT_PILLOW, str(tmp_path / "mask.png")]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    free, white, transparent = done.stdout.splitlines()
    assert free == white == "EncodedImage(size=(400, 300))"
    assert "needs Pillow" in transparent
    assert done.stderr.splitlines()[0].startswith("mask: sent unread, as white is repainted")
