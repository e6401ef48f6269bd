"""Stills that the service does not read: converted at full quality, or refused with a way to do it."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import pytest
from PIL import Image, ImageChops, ImageOps

from fluxwerk.catalog.images import LARGEST_BYTES
from fluxwerk.catalog.rows import get_model
from fluxwerk.client.inputs import EncodedImage, attach
from fluxwerk.errors import Fault
from fluxwerk.imagefile import measure

PRO = get_model("pro")
PHOTO = Image.linear_gradient("L").resize((96, 64)).rotate(30).convert("RGB")
PROFILE = b"a colour profile"


def written(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sent(source):
    attached = attach(source, "input_image", PRO)
    assert isinstance(attached, EncodedImage), str(attached)
    data = base64.b64decode(attached.text)
    assert measure(data).upright == attached.size
    return Image.open(io.BytesIO(data))


def sideways(orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(("kind", "lossless"), [("BMP", True), ("TIFF", True), ("GIF", False), ("AVIF", False)])
def test_a_still_is_converted_without_loss_and_the_log_says_so(kind, lossless, caplog):
    data = written(PHOTO, kind)

    image = sent(data)

    assert image.format == "PNG"
    assert image.convert("RGB").tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    assert not lossless or image.tobytes() == PHOTO.tobytes()
    assert caplog.messages == [f"input_image: converted from {kind} to PNG"]


def test_a_heic_photograph_is_converted_where_pillow_heif_is_installed():
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(PHOTO).save(file, quality=100, exif=sideways().tobytes())

    image = sent(file.getvalue())

    shown = PHOTO.transpose(Image.Transpose.ROTATE_270)
    assert image.size == (64, 96)
    assert max(high for _, high in ImageChops.difference(image, shown).getextrema()) < 16


HEIC = (24).to_bytes(4, "big") + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(40)


def test_where_no_package_reads_it_a_format_is_named_with_two_ways_out(tmp_path):
    script = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from fluxwerk.catalog.rows import get_model\n"
        "from fluxwerk.client.inputs import attach\n"
        "print(attach(bytes.fromhex(sys.argv[2]), 'input_image', get_model('pro')))"
    )
    for missing, extra, data, name in (
        ("pillow_heif", "heif", HEIC, "HEIC"),
        ("PIL", "images", written(PHOTO, "GIF"), "GIF"),
    ):
        command = [sys.executable, "-c", script, missing, data.hex()]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == (
            f"input_image = '{name}': must be a PNG, JPEG or WebP "
            f"(save it as PNG or JPEG, or pip install 'fluxwerk[{extra}]' and the client converts it)"
        )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7", "input_image = 'PDF': must be a PNG, JPEG or WebP (save it as PNG or JPEG)"),
        (b"GIF89a" + bytes(40), "input_image = 'GIF': cannot be read"),
        (written(PHOTO, "TIFF")[:-2000], "cannot be saved as PNG"),
        (written(Image.new("CMYK", (64, 64)), "TIFF"), "cannot be saved as PNG"),
        (written(PHOTO.resize((63, 64)), "BMP"), "must be at least 64 pixels on each side"),
        (written(PHOTO, "GIF", save_all=True, append_images=[ImageOps.invert(PHOTO)]), "it is an animation"),
        (written(PHOTO, "AVIF", save_all=True, append_images=[ImageOps.invert(PHOTO)]), "it is an animation"),
    ],
)
def test_what_cannot_be_converted_says_why(data, said):
    assert said in str(attach(data, "input_image", PRO))


def test_a_still_is_measured_before_it_is_decoded():
    claimed = (5000).to_bytes(4, "little") + (4001).to_bytes(4, "little")
    data = written(PHOTO, "BMP")

    assert "5000×4001" in str(attach(data[:18] + claimed + data[26:], "input_image", PRO))


def test_of_several_pages_the_first_is_taken():
    data = written(PHOTO, "TIFF", save_all=True, append_images=[ImageOps.invert(PHOTO)])

    assert sent(data).tobytes() == PHOTO.tobytes()


def test_a_bmp_beyond_20_mb_is_read_whole_from_a_path_and_from_a_file(tmp_path):
    path = tmp_path / "large.bmp"
    Image.new("RGB", (3000, 2500), "red").save(path)
    assert path.stat().st_size > LARGEST_BYTES

    assert sent(path).size == (3000, 2500)
    with path.open("rb") as file:
        assert sent(file).size == (3000, 2500)


def test_a_png_beyond_20_mb_becomes_a_jpeg_of_full_quality(caplog):
    noise = Image.merge("RGB", [Image.effect_noise((3000, 2600), 90) for _ in range(3)])

    image = sent(written(noise, "BMP"))

    assert image.format == "JPEG"
    assert image.layer[0][1:3] == image.layer[1][1:3], "no colour is thinned out"
    assert caplog.messages == ["input_image: converted from BMP to JPEG"]


def test_what_is_transparent_and_beyond_20_mb_is_refused():
    noise = Image.merge("RGBA", [Image.effect_noise((3000, 2600), 90) for _ in range(4)])

    assert "at most 20 MB" in str(attach(noise, "input_image", PRO))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_from_pillow_is_sent_upright(kind, orientation):
    opened = Image.open(io.BytesIO(written(PHOTO, kind, exif=sideways(orientation))))
    shown = ImageOps.exif_transpose(opened)

    image = sent(opened)

    assert image.tobytes() == shown.tobytes()
    assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_not_a_reason_to_refuse_a_photograph():
    data = written(PHOTO, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(9))

    assert sent(Image.open(io.BytesIO(data))).tobytes() == PHOTO.tobytes()


def test_a_colour_profile_is_kept_and_a_place_is_not():
    exif = sideways(1)
    exif[0x8825] = {1: "N"}
    opened = Image.open(io.BytesIO(written(PHOTO, "JPEG", exif=exif, icc_profile=PROFILE)))

    image = sent(opened)

    assert image.info["icc_profile"] == PROFILE
    assert not image.getexif()


def test_an_image_from_pillow_is_measured_before_it_is_decoded():
    opened = Image.open(io.BytesIO(written(Image.new("L", (5000, 4001)), "PNG")))

    assert "at most 20 megapixels" in str(attach(opened, "input_image", PRO))
    assert opened._im is None, "no pixel was decoded"


def test_where_nothing_may_be_rewritten_another_format_is_refused():
    fault = attach(written(PHOTO, "BMP"), "input_image", PRO, as_it_is=True)

    assert isinstance(fault, Fault)
    assert "must be a whole PNG, JPEG or WebP; its format is BMP" in str(fault)
