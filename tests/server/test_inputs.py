"""Images that come with a submit: orientation, masks, alpha, and how many of them each model takes."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from fluxwerk import catalog
from fluxwerk.client.inputs import attach
from fluxwerk.engines.offline import OfflineEngine
from support.asking import ask, face, fault, kept, poll, post, size_of
from support.images import jpeg, png, text

FILL = "/v1/flux-pro-1.0-fill"


def wrapped(data: bytes, end: str) -> str:
    """Base64 as mail and many tools wrap it."""
    return base64.encodebytes(data).decode().replace("\n", end)


@pytest.mark.parametrize(
    "write",
    [
        lambda data: wrapped(data, "\n"),
        lambda data: wrapped(data, "\r\n"),
        lambda data: f" \n{text(data)} \t",
        lambda data: "data:image/png;base64," + wrapped(data, "\r\n"),
        lambda data: "\nData:image/png;base64,\n" + wrapped(data, "\n"),
    ],
    ids=["LF", "CRLF", "blanks", "wrapped data URI", "data URI behind a line break"],
)
def test_base64_that_the_client_takes_is_taken_by_the_server_too(write):
    of, source = face(), write(png(64, 96))

    assert size_of(of, post(of, {"prompt": "x", "input_image": source})) == (64, 96)
    assert attach(source, "input_image", catalog.get_model("pro")).size == (64, 96)


def test_a_url_with_blanks_around_it_is_fetched():
    of = face(urls={"https://host.test/x.png": png(64, 96)})

    assert size_of(of, post(of, {"prompt": "x", "input_image": " https://host.test/x.png\n"})) == (64, 96)
    assert (
        attach(" https://host.test/x.png\n", "input_image", catalog.get_model("pro")).text == "https://host.test/x.png"
    )


def lying(width: int, height: int) -> bytes:
    """A photograph that a viewer turns by a quarter."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (width, height), (200, 20, 20)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_a_photograph_that_lies_on_its_side_gives_an_upright_image():
    of = face(engine=OfflineEngine())
    submitted = post(of, {"prompt": "x", "input_image": text(lying(192, 128))})
    assert size_of(of, submitted) == (128, 192)
    link = poll(of, submitted)["result"]["sample"]
    assert Image.open(io.BytesIO(ask(of, "GET", link, key=None).body)).size == (128, 192)


def test_a_mask_is_compared_with_the_upright_image():
    of = face()
    assert post(of, {"image": text(lying(300, 256)), "mask": text(png(256, 300))}, FILL).status == 200
    assert post(of, {"image": text(lying(300, 256)), "mask": text(png(300, 256))}, FILL).status == 422


@pytest.mark.parametrize("path", [FILL, "/v1/flux-fill", "/v1/flux-tools/erase-v1"])
def test_a_mask_of_another_size_is_refused_with_both_sizes(path):
    of = face()
    answer = post(of, {"image": text(png(300, 256)), "mask": text(png(256, 256))}, path)
    status, place, message = fault(answer)
    assert (status, place) == (422, ["body", "mask"])
    assert "256×256" in message
    assert "300×256" in message
    assert kept(of.state) == {}


def rgba(width: int, height: int, hole: tuple[int, int, int, int]) -> bytes:
    image, file = Image.new("RGBA", (width, height), (0, 0, 255, 255)), io.BytesIO()
    image.paste((0, 0, 0, 0), hole)
    image.save(file, "PNG")
    return file.getvalue()


def test_without_a_mask_the_images_own_alpha_says_what_is_repainted():
    of = face(engine=OfflineEngine())
    fields = {"image": text(rgba(256, 256, (0, 0, 128, 256))), "output_format": "png", "prompt": "x"}
    link = poll(of, post(of, fields, FILL))["result"]["sample"]
    painted = Image.open(io.BytesIO(ask(of, "GET", link, key=None).body)).convert("RGB")
    kept = painted.crop((192, 64, 248, 128)).getcolors()
    assert kept == [(56 * 64, (0, 0, 255))]
    assert len(painted.crop((8, 64, 64, 128)).getcolors(10_000) or range(9)) > 1


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/v1/flux-2-klein-4b", 4),
        ("/v1/flux-2-klein-9b", 4),
        ("/v1/flux-kontext-pro", 4),
        ("/v1/flux-kontext-max", 4),
        ("/v1/flux-2-pro", 8),
        ("/v1/flux-2-max", 8),
        ("/v1/flux-2-flex", 8),
    ],
)
def test_a_model_takes_so_many_references_and_leaves_the_others_out(path, most):
    of = face()
    fields = {f"input_image_{n}" if n > 1 else "input_image": text(jpeg(64 + n, 64)) for n in range(1, 12)}
    post(of, {"prompt": "x", **fields}, path)
    assert len(of.orders[-1].references) == most


def test_flux_3_takes_ten_and_leaves_the_eleventh_out():
    of = face()
    post(of, {"prompt": "x", "images": [text(png(256, 256))] * 11}, "/v1/flux-3-image")
    assert len(of.orders[-1].references) == 10


RANGES = [
    (path, option.name, bound)
    for model in catalog.list_models().values()
    for path in model.paths()[:1]
    for option in model.options.values()
    for bound in (option.minimum, option.maximum)
    if bound is not None and not option.required and not model.strict and option.name not in ("width", "height")
]


@pytest.mark.parametrize(("path", "name", "bound"), RANGES)
def test_every_bound_is_taken_and_what_lies_beyond_is_refused(path, name, bound):
    of = face()
    option = of.state.models[path].options[name]
    needed = {"prompt": "x", "image": text(png(256, 256)), "mask": text(png(256, 256))}
    needed["finetune_id"] = "my-lora"
    needed |= dict.fromkeys(("person", "garment"), text(png(256, 256)))
    beyond = float(bound) + (-0.5 if bound == option.minimum else 0.5)
    beyond = round(beyond + (-0.5 if bound == option.minimum else 0.5)) if option.type == "integer" else beyond
    good = float(bound) if option.type == "number" else int(bound)
    assert post(of, {**needed, name: good}, path).status == 200
    assert fault(post(of, {**needed, name: beyond}, path))[:2] == (422, ["body", name])


@pytest.mark.parametrize("model", catalog.list_models().values(), ids=lambda model: model.name)
def test_safety_tolerance_and_format_follow_the_model(model):
    """Safety tolerance and format have the models own bounds and defaults."""
    tolerance = model.options["safety_tolerance"]
    assert (tolerance.minimum, tolerance.default) == (0, 2)
    family = model.family
    assert tolerance.maximum == {"flux-2": 5, "flux-2-lora": 5, "flux-tools": 5, "flux-3": 7}.get(family, 6)
    wanted = "png" if family in ("flux-kontext", "flux-3") or model.name in PNG_TOOLS else "jpeg"
    assert "output_format" not in model.options or model.options["output_format"].default == wanted


PNG_TOOLS = {"flux-tools-outpainting", "flux-tools-erase", "flux-tools-deblur"}
