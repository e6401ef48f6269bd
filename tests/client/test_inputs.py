"""From what a caller has in hand to a request: every kind of image, every fault, one message."""

from __future__ import annotations

import base64
import io
import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fluxwerk.catalog import rows
from fluxwerk.catalog.images import LARGEST_BYTES
from fluxwerk.catalog.rows import Model, get_model
from fluxwerk.client.image import develop
from fluxwerk.client.inputs import EncodedImage, ModelOptions, RequestOptions, attach, compose
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.testing.face_to_face import blank
from fluxwerk.types import Outcome, Status, Task

PRO, KLEIN, FILL, ERASE, ULTRA, FLUX_3 = (
    get_model(name) for name in ("pro", "klein-4b", "fill", "erase", "ultra", "flux-3")
)
NEW = Model("new", "/v1/new")
FOX, WOLF = blank(128, 64), blank(64, 256)
URL = "https://example.com/fox.png"


def spot(width, height, kind="PNG", mode="L", back=0, front=255):
    """A mask whose middle differs from its edge."""
    mask, file = Image.new(mode, (width, height), back), io.BytesIO()
    mask.paste(front, (width // 4, height // 4, width // 2, height // 2))
    mask.save(file, kind)
    return file.getvalue()


def coded(data):
    return base64.b64encode(data).decode()


HOLE = spot(128, 64)


def faults(model, prompt="a fox", **wanted):
    with pytest.raises(InvalidUsageError) as caught:
        compose(model, prompt, **wanted)
    return {fault.field: str(fault) for fault in caught.value.faults}


def test_the_options_are_exactly_those_of_the_catalogue():
    known = {name for model in rows.list_models().values() for name in model.options}

    assert set(ModelOptions.__annotations__) == known - {"prompt", "images"}


def test_an_option_that_holds_an_image_says_so_in_its_type():
    images = {o.name for m in rows.list_models().values() for o in m.options.values() if o.type == "image"}

    assert {name for name, kind in ModelOptions.__annotations__.items() if "ImageInput" in str(kind)} == images


def test_an_option_may_be_none_where_some_model_allows_it():
    nullable = {o.name for m in rows.list_models().values() for o in m.options.values() if o.nullable}
    kinds = {name: kind.__forward_arg__ for name, kind in ModelOptions.__annotations__.items()}

    assert {name for name in nullable & set(kinds) if not kinds[name].endswith("| None")} == set()


def test_beside_options_there_are_five_words():
    assert set(RequestOptions.__annotations__) - set(ModelOptions.__annotations__) == {
        "model",
        "images",
        "mask_is",
        "extra",
        "timeout",
        "allow_empty_prompt",
    }


def test_a_request_holds_the_prompt_and_the_options_that_were_given():
    request = compose(PRO, "a fox", options={"width": 512, "height": 512, "seed": None})

    assert request.model == "flux-2-pro"
    assert request.fields == {"prompt": "a fox", "width": 512, "height": 512}
    assert request.sizes == ()


def test_a_model_that_needs_no_prompt_gets_none():
    assert compose(ULTRA).fields == {}


def test_every_fault_is_named_at_once():
    wrong = faults(PRO, None, images=[b"GIF89a"], options={"width": 5, "stepps": 1})

    assert set(wrong) == {"prompt", "input_image", "width", "stepps"}


def test_a_path_as_a_text_is_read_from_its_folder(tmp_path):
    path = tmp_path / "fox.png"
    path.write_bytes(FOX)

    for source in (path, str(path)):
        assert attach(source, "input_image", PRO) == EncodedImage(coded(FOX), (128, 64))


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "fox.png").write_bytes(FOX)

    assert attach("~/fox.png", "input_image", PRO).size == (128, 64)


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytearray,
        io.BytesIO,
        lambda data: Image.open(io.BytesIO(data)),
        coded,
        lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
        lambda data: f"data:image/png;base64,{coded(data)}",
        lambda data: develop(Status(Task("1", URL), "Ready", Outcome.READY), data),
    ],
    ids=["bytes", "bytearray", "file", "pillow", "base64", "base64 in lines", "data URI", "an image made before"],
)
def test_an_image_may_come_in_many_forms(make):
    attached = attach(make(FOX), "input_image", PRO)

    assert attached.size == (128, 64)
    assert base64.b64decode(attached.text).startswith(b"\x89PNG")


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1/fox"])
def test_a_url_is_sent_as_it_is_and_its_size_stays_unknown(url):
    assert attach(url, "input_image", PRO) == EncodedImage(url, None)


def test_an_attached_image_does_not_show_its_bytes():
    assert coded(FOX) not in repr(attach(FOX, "input_image", PRO))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("no/such/fox.png", "there is no such file"),
        ("data:image/png,abc", "must be base64"),
        ("data:image/png;base64", "must be base64"),
        ("data:image/png;base64,!", "the text is not base64"),
        ("füchse", "is not a file"),
        ("", "it is empty"),
        (b"", "it is empty"),
        (b"<html>", "it is a web page"),
        (FOX[:-9], "it is cut off or damaged"),
        (io.StringIO("fox"), "must be opened in binary mode"),
        (5, "must be a path, bytes, a file"),
        (["fox.png"], "must be a path, bytes, a file"),
        ("\0.png", "cannot be read"),
        ("~nobody-of-that-name/fox.png", "cannot be read"),
        (blank(63, 64), "at least 64 pixels on each side"),
        (blank(5000, 4001), "at most 20 megapixels"),
    ],
)
def test_an_image_that_cannot_be_used_says_why(source, said):
    fault = attach(source, "input_image", PRO)

    assert isinstance(fault, Fault)
    assert fault.field == "input_image"
    assert said in str(fault)


def test_base64_too_long_for_the_name_of_a_file_is_read():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    text = coded(file.getvalue()).replace("/", "+")

    assert len(text) > 1000
    assert not isinstance(attach(coded(file.getvalue()), "input_image", PRO), Fault)
    assert "damaged" in str(attach(text, "input_image", PRO))


def test_a_folder_is_not_an_image(tmp_path):
    assert "cannot be read" in str(attach(tmp_path, "input_image", PRO))


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "fox.png"
    path.write_bytes(FOX[:-9])

    assert str(path) in str(attach(str(path), "input_image", PRO))
    assert str(path) in str(attach(path, "input_image", PRO))


def test_a_file_that_is_too_large_is_called_large_and_not_damaged(tmp_path):
    path = tmp_path / "fox.png"
    with path.open("wb") as file:
        file.write(FOX)
        file.truncate(LARGEST_BYTES + 10)

    assert "at most 20 MB" in str(attach(path, "input_image", PRO))
    assert "at most 20 MB" in str(attach(io.BytesIO(bytes(LARGEST_BYTES + 1)), "input_image", PRO))


def test_an_image_that_png_cannot_hold_is_a_fault_with_a_way_out():
    assert "convert" in str(attach(Image.new("CMYK", (64, 64)), "input_image", PRO))


@given(
    st.one_of(st.text(max_size=80), st.binary(max_size=80), st.integers(), st.none(), st.lists(st.text(), max_size=2))
)
def test_whatever_is_given_as_an_image_is_attached_or_a_fault(source):
    assert isinstance(attach(source, "input_image", PRO), EncodedImage | Fault)


def test_a_model_has_its_own_smallest_and_largest_image():
    assert isinstance(attach(blank(200, 200), "image", FILL), Fault)
    assert isinstance(attach(blank(5000, 3300), "images", FLUX_3), Fault)
    assert isinstance(attach(blank(5000, 3300), "input_image", PRO), EncodedImage)


def test_images_go_into_the_fields_of_the_model_in_their_order():
    request = compose(PRO, "two", images=[FOX, URL, WOLF])

    assert list(request.fields)[1:] == ["input_image", "input_image_2", "input_image_3"]
    assert request.fields["input_image_2"] == URL
    assert request.sizes == ((128, 64), None, (64, 256))


@pytest.mark.parametrize(
    ("model", "field"),
    [(FILL, "image"), (ULTRA, "image_prompt"), (get_model("outpaint"), "input_image"), (PRO, "input_image")],
)
def test_one_image_goes_where_the_model_wants_it(model, field):
    big = blank(512, 512)
    options = {"width": 600, "height": 600} if model.name.endswith("outpainting") else {}
    options |= {"mask": spot(512, 512)} if model is FILL else {}

    assert compose(model, "a fox", images=[big], options=options).fields[field] == coded(big)


def test_flux_3_takes_its_images_as_a_list():
    big = blank(512, 256)

    request = compose(FLUX_3, "two", images=[big, URL])

    assert request.fields["images"] == [coded(big), URL]
    assert request.sizes == ((512, 256), None)
    assert compose(FLUX_3, "two", images=(big,)).fields["images"] == [coded(big)]


def test_named_images_count_in_the_order_of_the_model():
    """Images by name count in the order of the model however they were given."""
    request = compose(PRO, "two", options={"input_image_2": WOLF, "input_image": FOX})

    assert request.sizes == ((128, 64), (64, 256))


@pytest.mark.parametrize(
    ("model", "count", "said"),
    [
        (KLEIN, 5, "takes at most 4 images"),
        (FILL, 2, "takes at most 1 image here"),
        (get_model("vto"), 1, "takes at most 0 images here (name the fields of its images: person, garment)"),
    ],
)
def test_too_many_images_are_refused(model, count, said):
    assert said in faults(model, images=[FOX] * count)["images"]


def test_the_same_field_given_twice_is_refused():
    assert "given twice" in faults(PRO, images=[FOX], options={"input_image": WOLF})["input_image"]


@pytest.mark.parametrize("one", ["fox.png", b"fox"])
def test_one_image_in_place_of_a_list_is_refused(one):
    assert "must be a list of images" in faults(PRO, images=one)["images"]


def test_a_list_in_a_field_for_one_image_is_refused():
    assert "must be a path" in faults(PRO, options={"input_image": [FOX, WOLF]})["input_image"]


def test_a_mask_must_be_as_large_as_its_image():
    image, mask = blank(512, 256), spot(512, 256)

    assert (
        "must be as large as the image, 512×256"
        in faults(FILL, options={"image": image, "mask": spot(256, 512)})["mask"]
    )
    assert compose(FILL, options={"image": image, "mask": mask}).sizes == ((512, 256),)
    assert compose(FILL, options={"image": URL, "mask": mask}).sizes == (None,)


def sideways(size, kind="JPEG", orientation=6):
    """A photograph that a viewer turns by a quarter."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.linear_gradient("L").resize(size).rotate(30).convert("RGB").save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_mask_is_compared_with_the_photograph_as_a_viewer_shows_it(kind):
    photo, mask = sideways((300, 256), kind), spot(256, 300)

    assert compose(FILL, options={"image": photo, "mask": mask}).sizes == ((256, 300),)
    assert (
        "must be as large as the image, 256×300"
        in faults(FILL, options={"image": photo, "mask": spot(300, 256)})["mask"]
    )


@pytest.mark.parametrize(
    ("image", "kind", "options"),
    [
        (Image.new("RGB", (256, 256)), "JPEG", {}),
        (Image.new("RGB", (256, 256)), "PNG", {}),
        (Image.new("RGB", (256, 256)), "WEBP", {}),
        (Image.new("RGB", (256, 256)), "WEBP", {"lossless": True}),
    ],
)
def test_an_opaque_image_without_a_mask_is_not_filled(image, kind, options):
    file = io.BytesIO()
    image.save(file, kind, **options)

    wrong = faults(FILL, images=[file.getvalue()])

    assert "is missing, and no part of the image is transparent" in wrong["mask"]
    assert list(faults(ERASE, None, images=[file.getvalue()])) == ["mask"]
    assert list(faults(FILL, images=[b"x"])) == ["image"]


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGB", "PNG", {"transparency": (0, 0, 0)}),
        ("RGBA", "WEBP", {}),
        ("RGBA", "WEBP", {"lossless": True}),
    ],
)
def test_the_transparent_part_of_an_image_stands_for_a_mask(mode, kind, options):
    image, file = Image.new(mode, (256, 256)), io.BytesIO()
    image.save(file, kind, **options)

    assert set(compose(FILL, "a lake", images=[file.getvalue()]).fields) == {"prompt", "image"}
    assert set(compose(FILL, "a lake", images=[URL]).fields) == {"prompt", "image"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fox.png")

    assert "it is not a regular file" in str(attach(tmp_path / "fox.png", "input_image", PRO))


def test_a_photograph_that_is_too_small_is_named_with_its_upright_size():
    assert "63×200" in str(attach(sideways((200, 63)), "input_image", PRO))


def test_a_damaged_mask_is_one_fault_and_not_two():
    wrong = faults(get_model("erase"), None, options={"image": blank(64, 64), "mask": b"x"})

    assert list(wrong) == ["mask"]


@pytest.mark.parametrize("wanted", [True, False])
def test_upsampling_is_one_word_for_all_models(wanted):
    assert compose(PRO, "a fox", options={"prompt_upsampling": wanted}).fields["disable_pup"] is not wanted
    assert compose(ULTRA, "a fox", options={"prompt_upsampling": wanted}).fields["prompt_upsampling"] is wanted


def test_upsampling_that_is_no_switch_is_a_fault():
    assert "true or false" in faults(PRO, options={"prompt_upsampling": "yes"})["disable_pup"]


def test_upsampling_said_in_both_words_is_a_fault():
    assert (
        "no such option" in faults(PRO, options={"prompt_upsampling": True, "disable_pup": True})["prompt_upsampling"]
    )


def test_newer_models_are_sent_unchecked_with_a_warning(caplog):
    """What is newer than this release is sent unchecked and with a warning."""
    with caplog.at_level(logging.WARNING, "fluxwerk"):
        request = compose(PRO, "a fox", options={"width": 512}, extra={"newest": [1], "width": 640})

    assert request.fields == {"prompt": "a fox", "width": 640, "newest": [1]}
    assert caplog.messages == ["sent unchecked to flux-2-pro: newest, width"]


def test_a_model_by_hand_takes_every_option_and_knows_an_image_by_its_name():
    options = {"image_prompt_strength": 0.3, "images_per_second": 2, "mask": HOLE, "anything": None, "steps": 900}

    request = compose(NEW, "a fox", images=[FOX, WOLF], options=options)

    assert request.fields == {
        "prompt": "a fox",
        "image_prompt_strength": 0.3,
        "images_per_second": 2,
        "mask": coded(HOLE),
        "steps": 900,
        "input_image": coded(FOX),
        "input_image_2": coded(WOLF),
    }
    assert request.sizes == ((128, 64), (64, 256))


def test_an_image_that_was_attached_before_stays_as_it_is():
    attached = EncodedImage("aGVsbG8=", (64, 64))
    assert attach(attached, "input_image", get_model("flux-2-pro")) is attached


@pytest.mark.parametrize(
    "url", ["HTTPS://a.b/c.png?sig=secret", "s3://bucket/c?sig=secret", "ftp://h/c?sig=secret&n=c.png"]
)
def test_a_url_that_is_none_of_ours_is_told_without_its_query(url):
    with pytest.raises(InvalidUsageError) as refused:
        compose(get_model("flux-2-pro"), "a fox", images=[url])
    assert "c" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_a_blank_prompt_is_refused_where_the_model_needs_one(prompt):
    with pytest.raises(InvalidUsageError, match="at least one word"):
        compose(PRO, prompt)
    assert compose(PRO, prompt, allow_empty_prompt=True).fields == {"prompt": prompt}
    assert compose(ULTRA, prompt).fields == {"prompt": prompt}
