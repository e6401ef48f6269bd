"""The offline engine: deterministic, honest about what it is, exact where it must be."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from fluxwerk import imagefile
from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.codec import decode, encode
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.engines.offline.palette import MOOD_WORDS, lean, named_colours
from fluxwerk.engines.offline.scene import SCENES

ORDER = Order("flux-2-pro", "a teapot on a table", 42, 320, 256)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)

# A prompt for each scene, so that every scene is painted below.
PROMPTS = {
    "mountains": "mountains at sunset",
    "lake": "a lake at night",
    "sea": "ocean waves",
    "dunes": "sand of the sahara",
    "forest": "a forest",
    "city": "a city",
    "discs": "a cat",
    "ribbons": "silk",
    "paper": "a cave",
    "tiles": "bauhaus",
}
GOLDEN = {
    "mountains at sunset": "328d690cd2ddff8f8c1d901e310ff54416bb070b8211b55addc3faa6fe5dc167",
    "a cave": "dcdf637cbf895506875803eee742e5a2cc05eb6d47eea19e9f4f87ca8f3be66e",
    "logo of #FF3366 and #00A0B0": "99a41a62081d51a7a2f83cf58a165e4a1184372af62bdca6a5286c722f006835",
}


def render(order: Order) -> Image.Image:
    return Image.open(io.BytesIO(OfflineEngine().render(order)))


def file(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour: tuple[int, ...], size: tuple[int, int] = (60, 40)) -> bytes:
    return file(Image.new("RGB", size, colour))


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    seed = hashlib.shake_256(b"noise").digest(size[0] * size[1] * len(mode))
    return Image.frombytes(mode, size, seed)


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return how far apart two pictures are on average, in levels."""
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean) / 3


def shares(picture: Image.Image) -> dict[tuple[int, int, int], float]:
    """Return which part of the picture each colour covers."""
    pixels = picture.width * picture.height
    return {shown: count / pixels for count, shown in picture.getcolors(pixels)}


def middle_of(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[float, float]:
    """Return where the pixels of exactly this colour lie on average."""
    data = picture.convert("RGB").tobytes()
    places = [at for at in range(0, len(data), 3) if tuple(data[at : at + 3]) == colour]
    assert places
    xs = [at // 3 % picture.width for at in places]
    ys = [at // 3 // picture.width for at in places]
    return sum(xs) / len(xs), sum(ys) / len(ys)


@pytest.mark.parametrize(("prompt", "digest"), GOLDEN.items())
def test_the_same_order_gives_the_same_pixels_on_every_machine(prompt: str, digest: str) -> None:
    picture = render(Order("flux-2-pro", prompt, 42, 256, 192))
    assert hashlib.sha256(picture.tobytes()).hexdigest() == digest


def test_many_threads_paint_the_same_picture() -> None:
    engine = OfflineEngine()
    with ThreadPoolExecutor(4) as pool:
        files = set(pool.map(engine.render, [ORDER] * 8))
    assert len(files) == 1


def test_importing_the_engine_does_not_load_pillow() -> None:
    program = "import sys, fluxwerk.engines.offline, fluxwerk.engines.codec; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a teapot on a chair"},
        {"seed": 43},
        {"model": "flux-2-max"},
        {"references": (plain(RED),)},
        {"canvas": Canvas(plain(RED), None, (10, 10))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_order_gives_clearly_another_picture(change: dict[str, object]) -> None:
    assert difference(render(ORDER), render(replace(ORDER, **change))) > 8


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_another_seed_gives_another_picture_of_the_same_scene(prompt: str) -> None:
    order = replace(ORDER, prompt=prompt)
    assert difference(render(order), render(replace(order, seed=7))) > 3


def test_other_references_give_another_picture_around_the_cards() -> None:
    one = render(replace(ORDER, references=(plain(RED),)))
    other = render(replace(ORDER, references=(plain(BLUE),)))
    strip = (0, 0, ORDER.width, 30)
    assert difference(one.crop(strip), other.crop(strip)) > 3


def test_every_scene_has_its_prompt() -> None:
    assert PROMPTS.keys() == SCENES.keys()


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_every_scene_is_neither_flat_nor_noise(prompt: str) -> None:
    picture = render(replace(ORDER, prompt=prompt))
    assert max(ImageStat.Stat(picture).stddev) > 15
    assert difference(picture, ImageChops.offset(picture, 1, 0)) < 12


@pytest.mark.parametrize(
    ("prompt", "mood"),
    [
        ("A serene mountain landscape at sunset", "sunset"),
        ("the SEA at sunset", "sunset"),
        ("OCEAN", "sea"),
        ("two trees", "forest"),
        ("a teapot", None),
        ("", None),
    ],
)
def test_plain_words_lean_the_colours(prompt: str, mood: str | None) -> None:
    assert lean(prompt, MOOD_WORDS) == mood


@pytest.mark.parametrize("place", ["", *PROMPTS.values()], ids=["anything", *PROMPTS])
@pytest.mark.parametrize("numbers", ["#FF3366", "#1b998b and #2D3047", "#FF0000 #00FF00 #0000FF #111111 #EEEEEE"])
def test_each_colour_named_by_number_is_drawn_exactly(place: str, numbers: str) -> None:
    picture = render(replace(ORDER, prompt=f"{place} in {numbers}"))
    covered = shares(picture)
    assert all(covered[colour] >= 0.02 for colour in named_colours(numbers))


def test_named_colours_stay_visible_behind_ten_references() -> None:
    numbers = "#FF0010 #00FF10 #1000FF #111111 #EEEEE0"
    order = replace(ORDER, prompt=f"mountains {numbers}", references=(plain((9, 9, 9)),) * 10)
    covered = shares(render(order))
    assert all(covered[colour] >= 0.02 for colour in named_colours(numbers))


def test_a_number_that_is_no_colour_is_left_alone() -> None:
    assert named_colours("ticket #1234567, #12345, #ABCDEG and #FFFFFF, #ffffff") == ((255, 255, 255),)


def test_five_named_colours_are_enough() -> None:
    assert len(named_colours(" ".join(f"#{number:06x}" for number in range(9)))) == 5


def test_references_stand_in_their_order() -> None:
    order = Order("flux-2-pro", "a lake", 1, 900, 300, references=(plain(RED), plain(GREEN), plain(BLUE)))
    picture = render(order)
    xs = [middle_of(picture, colour)[0] for colour in (RED, GREEN, BLUE)]
    assert xs == sorted(xs)


@pytest.mark.parametrize("size", [(256, 256), (640, 300), (256, 1024)])
@pytest.mark.parametrize("count", range(1, 11))
def test_one_to_ten_references_all_show(count: int, size: tuple[int, int]) -> None:
    colours = [(200, 20 * index, 7) for index in range(count)]
    order = replace(ORDER, width=size[0], height=size[1], references=tuple(plain(colour) for colour in colours))
    covered = shares(render(order))
    assert all(covered[colour] > 0.002 for colour in colours)


def test_a_reference_keeps_its_shape() -> None:
    picture = render(replace(ORDER, references=(plain(RED, (200, 50)),)))
    mask = (
        ImageChops.difference(picture, Image.new("RGB", picture.size, RED)).convert("L").point(lambda v: 255 * (v == 0))
    )
    left, top, right, bottom = mask.getbbox()
    assert (right - left) / (bottom - top) == pytest.approx(4, rel=0.05)


def test_a_reference_is_turned_upright() -> None:
    sideways = Image.new("RGB", (80, 40), RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(file(sideways, "JPEG", exif=exif)).size == (40, 80)


def mask_of(size: tuple[int, int], hole: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, hole)
    return mask


@pytest.mark.parametrize("model", ["flux-pro-1.0-fill", "flux-tools/erase-v1"])
def test_outside_the_mask_every_pixel_stays(model: str) -> None:
    source, hole = noise((320, 256)), (200, 100, 310, 250)
    canvas = Canvas(file(source), file(mask_of(source.size, hole)))
    picture = render(replace(ORDER, model=model, canvas=canvas))
    changed = ImageChops.difference(picture, source).getbbox()
    assert changed is not None
    assert (changed[0] >= hole[0], changed[1] >= hole[1], changed[2] <= hole[2], changed[3] <= hole[3]) == (True,) * 4
    assert difference(picture.crop(hole), source.crop(hole)) > 20


def test_grey_in_the_mask_blends() -> None:
    source, mask = Image.new("RGB", (320, 256)), Image.new("L", (320, 256), 128)
    picture = render(replace(ORDER, prompt="a cave", canvas=Canvas(file(source), file(mask))))
    assert 60 < max(high for _, high in picture.getextrema()) <= 129


def test_a_mask_of_another_size_is_fitted_to_the_source() -> None:
    source = noise((320, 256))
    canvas = Canvas(file(source), file(mask_of((160, 128), (80, 0, 160, 128))))
    picture = render(replace(ORDER, canvas=canvas))
    left = (0, 0, 150, 256)
    assert picture.crop(left).tobytes() == source.crop(left).tobytes()
    assert difference(picture.crop((170, 0, 320, 256)), source.crop((170, 0, 320, 256))) > 20


def test_what_is_transparent_is_painted_when_no_mask_is_given() -> None:
    source = noise((320, 256)).convert("RGBA")
    source.paste((0, 0, 0, 0), (0, 0, 100, 256))
    picture = render(replace(ORDER, canvas=Canvas(file(source))))
    kept = (100, 0, 320, 256)
    assert picture.crop(kept).tobytes() == source.convert("RGB").crop(kept).tobytes()
    assert picture.crop((0, 0, 100, 256)).getextrema() != ((0, 0),) * 3


def test_an_expanded_picture_holds_its_source_untouched() -> None:
    source = noise((100, 80))
    picture = render(replace(ORDER, canvas=Canvas(file(source), None, (50, 60))))
    assert picture.size == (320, 256)
    assert picture.crop((50, 60, 150, 140)).tobytes() == source.tobytes()
    assert max(ImageStat.Stat(picture.crop((0, 0, 320, 50))).stddev) > 3


@pytest.mark.parametrize("offset", [(-30, -20), (300, 240), (400, 400), (-400, 0)])
def test_a_source_that_sticks_out_is_cropped(offset: tuple[int, int]) -> None:
    source = noise((100, 80))
    picture = render(replace(ORDER, canvas=Canvas(file(source), None, offset)))
    expected = picture.copy()
    expected.paste(source, offset)
    assert picture.tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [(400, 300), (200, 100)])
def test_a_masked_source_of_another_size_than_the_output_does_no_harm(size: tuple[int, int]) -> None:
    canvas = Canvas(file(noise(size)), file(mask_of(size, (10, 10, 60, 60))))
    assert render(replace(ORDER, canvas=canvas)).size == (320, 256)


def test_erasing_leaves_the_colour_of_the_surroundings() -> None:
    source = Image.new("RGB", (320, 256), (90, 140, 60))
    source.paste(RED, (100, 100, 140, 140))
    mask = file(mask_of(source.size, (95, 95, 145, 145)))
    picture = render(replace(ORDER, model="flux-erase", canvas=Canvas(file(source), mask)))
    assert difference(picture, Image.new("RGB", picture.size, (90, 140, 60))) < 1


@pytest.mark.parametrize("hole", [(60, 20, 320, 60), (0, 100, 260, 140), (40, 200, 300, 256)])
def test_the_plate_lies_within_what_is_painted(hole: tuple[int, int, int, int]) -> None:
    source = Image.new("RGB", (320, 256), (90, 140, 60))
    canvas = Canvas(file(source), file(mask_of(source.size, hole)))
    picture = render(replace(ORDER, model="flux-erase", canvas=canvas))
    clear = ImageChops.difference(picture, source).convert("L").point(lambda level: 255 * (level > 20))
    left, top, right, bottom = clear.getbbox()
    # The whole plate, not what a mask left of it.
    assert right - left >= 225
    assert bottom - top >= 13


def test_deblurring_sharpens_and_says_so() -> None:
    source = Image.linear_gradient("L").resize((320, 256)).convert("RGB")
    source.paste(BLUE, (100, 50, 200, 120))
    picture = render(replace(ORDER, model="flux-deblur", canvas=Canvas(file(source))))
    assert difference(picture.crop((0, 0, 320, 200)), source.crop((0, 0, 320, 200))) < 3
    assert difference(picture.crop((4, 230, 240, 252)), source.crop((4, 230, 240, 252))) > 20


@pytest.mark.parametrize(("output_format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("size", [(64, 64), (64, 2048), (2048, 64), (257, 333), (1000, 64)])
def test_every_format_has_exactly_the_size_asked_for(output_format: str, kind: str, size: tuple[int, int]) -> None:
    data = OfflineEngine().render(replace(ORDER, width=size[0], height=size[1], output_format=output_format))
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.mode, picture.size) == (kind, "RGB", size)
    assert imagefile.fault(data) is None


def test_the_format_does_not_change_the_picture() -> None:
    assert difference(render(ORDER), render(replace(ORDER, output_format="jpeg"))) < 3


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="'gif'; use png, jpeg or webp"):
        OfflineEngine().render(replace(ORDER, output_format="gif"))


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(64, 400),
    height=st.integers(64, 400),
    prompt=st.text(max_size=20) | st.sampled_from(list(PROMPTS.values())),
    seed=st.integers(-(2**63), 2**64),
)
def test_any_size_prompt_and_seed_can_be_painted(width: int, height: int, prompt: str, seed: int) -> None:
    assert render(Order("flux-dev", prompt, seed, width, height)).size == (width, height)


@pytest.mark.parametrize(("size", "plate"), [((1024, 1024), (450, 28)), ((256, 256), (230, 14)), ((64, 64), (50, 14))])
def test_a_plate_in_the_corner_says_that_this_is_not_flux(size: tuple[int, int], plate: tuple[int, int]) -> None:
    corner = render(replace(ORDER, prompt="bauhaus", width=size[0], height=size[1])).crop(
        (0, size[1] - plate[1] - 8, plate[0], size[1])
    )
    dark_and_light = corner.convert("L").getextrema()
    assert dark_and_light[0] < 90
    assert dark_and_light[1] > 215
    letters = sum(corner.convert("L").histogram()[215:])
    assert 0.05 < letters / (corner.width * corner.height) < 0.6


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_metadata_says_what_made_the_file_but_not_the_prompt(output_format: str) -> None:
    data = OfflineEngine().render(replace(ORDER, output_format=output_format))
    picture = Image.open(io.BytesIO(data))
    if output_format == "png":
        software, description = picture.text["Software"], picture.text["Description"]
    else:
        software, description = picture.getexif()[0x0131], picture.getexif()[0x010E]
    assert software == "fluxwerk offline renderer"
    assert description == "model flux-2-pro, seed 42, not FLUX"
    assert b"teapot" not in data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "neither PNG, JPEG nor WebP"),
        (b"<html>", "neither PNG, JPEG nor WebP"),
        (b"GIF89a" + bytes(40), "neither PNG, JPEG nor WebP"),
        (plain(RED)[:60], "cannot be decoded"),
        (file(noise((90, 90)), "JPEG")[:900], "cannot be decoded"),
        (file(noise((90, 90)), "WEBP")[:900], "cannot be decoded"),
    ],
)
def test_what_is_no_whole_image_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decode(data)
    with pytest.raises(ValueError, match=sentence):
        OfflineEngine().render(replace(ORDER, references=(data,)))


def chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png_that_claims(width: int, height: int) -> bytes:
    return imagefile.PNG_SIGNATURE + header(width, height)


def test_a_small_header_before_a_large_one_deceives_nobody() -> None:
    data = png_that_claims(8, 8) + header(9_000, 9_000) + chunk(b"IDAT", zlib.compress(bytes(99)))
    with pytest.raises(ValueError, match="another size than its header says"):
        decode(data)


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (5_000, 4_001), (2**31 - 1, 1)])
def test_a_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"{width} x {height} pixels; at most 20000000"):
        decode(png_that_claims(width, height))


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="has no pixels"):
        decode(png_that_claims(0, 5))


def test_the_limit_of_pixels_can_be_set() -> None:
    assert decode(plain(RED, (10, 10)), largest=100).size == (10, 10)
    with pytest.raises(ValueError, match="at most 99"):
        decode(plain(RED, (10, 10)), largest=99)


@pytest.mark.parametrize(
    ("picture", "mode"),
    [
        (Image.new("L", (8, 8), 200), "RGB"),
        (Image.new("1", (8, 8), 1), "RGB"),
        (Image.new("P", (8, 8)), "RGB"),
        (Image.new("LA", (8, 8)), "RGBA"),
        (Image.new("RGBA", (8, 8)), "RGBA"),
        (Image.new("I;16", (8, 8), 40_000), "RGB"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_every_kind_of_pixel_becomes_rgb_or_rgba(picture: Image.Image, mode: str) -> None:
    assert decode(file(picture)).mode == mode


def test_deep_greys_keep_their_lightness() -> None:
    assert decode(file(Image.new("I;16", (8, 8), 40_000))).getpixel((0, 0)) == (156, 156, 156)


def test_cmyk_photographs_are_read() -> None:
    assert decode(file(Image.new("CMYK", (8, 8)), "JPEG")).mode == "RGB"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_only_the_first_frame_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    data = file(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert decode(data).convert("RGB").getpixel((4, 4)) in {RED, (254, 0, 0)}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("directory", [b"MM\x00*\xff\xff\xff\xff", b"no directory", b"II*\x00\x08\x00\x00\x00\xff"])
def test_broken_exif_is_no_reason_to_refuse_a_photograph(directory: bytes, kind: str) -> None:
    data = file(Image.new("RGB", (80, 40), RED), kind, exif=b"Exif\x00\x00" + directory)
    assert decode(data).size == (80, 40)


def test_what_was_encoded_can_be_decoded() -> None:
    picture = noise((33, 17))
    assert decode(encode(picture, "png")).tobytes() == picture.tobytes()
