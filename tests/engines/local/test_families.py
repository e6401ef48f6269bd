"""Every family of open weights: what our loop paints is what the stock pipeline paints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

import diffusers
import torch
from PIL import Image, ImageChops, ImageStat

from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.local.loop import Loop
from support.painting import finish, paint
from support.photos import apart, ellipse, photo, png

SIZE = {"width": 128, "height": 192}
REFERENCES = [photo(256, 128, 1), photo(64, 64, 2), photo(300, 200, 3), photo(128, 128, 4)]
SOURCE, MASK = photo(256, 192, 5), ellipse(256, 192)


def order(model: str, references: int = 0, **options: object) -> Order:
    files = tuple(png(image) for image in REFERENCES[:references])
    return Order(model, "a red fox", 7, **SIZE, references=files, options=options)


@pytest.fixture
def stock(checkpoint: Callable[[str], Path]) -> Callable[..., Image.Image]:
    def run(name: str, pipeline: str, **given: object) -> Image.Image:
        kind = getattr(diffusers, pipeline)
        pipe = kind.from_pretrained(str(checkpoint(name)), dtype=torch.float32, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator("cpu").manual_seed(7)
        return pipe(**{"prompt": "a red fox", **SIZE, **given}, generator=generator).images[0]

    return run


@pytest.mark.parametrize("references", [0, 1, 4])
def test_klein_paints_as_stock_klein_does(family, stock, references: int) -> None:
    ours = paint(family("klein"), order("flux-2-klein-4b", references))
    images = REFERENCES[:references] or None
    theirs = stock("klein", "Flux2KleinPipeline", image=images, num_inference_steps=4, guidance_scale=1.0)
    assert apart(ours, theirs) <= 1


def test_klein_base_is_guided_by_a_second_pass(family, stock) -> None:
    ours = paint(family("klein-base", 4), order("flux-2-klein-4b"))
    theirs = stock("klein-base", "Flux2KleinPipeline", num_inference_steps=4, guidance_scale=4.0)
    assert apart(ours, theirs) <= 1


@pytest.mark.parametrize("references", [0, 1, 4])
def test_klein_kv_reads_references_once(family, stock, references: int) -> None:
    ours = paint(family("klein-kv"), order("flux-2-klein-9b-preview", references))
    images = REFERENCES[:references] or None
    theirs = stock("klein-kv", "Flux2KleinKVPipeline", image=images, num_inference_steps=4)
    assert apart(ours, theirs) <= 1


@pytest.mark.parametrize("references", [0, 1, 4])
def test_dev_honours_steps_guidance_and_references(family, stock, references: int) -> None:
    ours = paint(family("dev"), order("flux-2-dev", references, steps=5, guidance=2.5))
    images = REFERENCES[:references] or None
    theirs = stock("dev", "Flux2Pipeline", image=images, num_inference_steps=5, guidance_scale=2.5)
    assert apart(ours, theirs) <= 1


def test_flux1_dev_honours_steps_and_guidance(family, stock) -> None:
    ours = paint(family("flux1-dev"), order("flux-dev", steps=5, guidance=2.0))
    assert apart(ours, stock("flux1-dev", "FluxPipeline", num_inference_steps=5, guidance_scale=2.0)) <= 1


def test_schnell_always_takes_its_four_steps(family, stock) -> None:
    ours = paint(family("flux1-schnell"), order("flux-dev", steps=28, guidance=3.0))
    theirs = stock("flux1-schnell", "FluxPipeline", num_inference_steps=4, guidance_scale=0.0, max_sequence_length=256)
    assert apart(ours, theirs) <= 1


@pytest.mark.parametrize("references", [0, 1])
def test_kontext_edits_a_picture_and_does_without_one(family, stock, references: int) -> None:
    ours = paint(family("kontext", 2), order("flux-kontext-pro", references))
    image = REFERENCES[0] if references else None
    # Stock Kontext ignores width and height unless it is told the area too.
    more = {"image": image, "max_area": 128 * 192, "num_inference_steps": 2, "guidance_scale": 2.5}
    assert apart(ours, stock("kontext", "FluxKontextPipeline", **more)) <= 1


def test_fill_equals_stock_fill_and_keeps_unmasked_pixels(family, stock) -> None:
    """Fill paints as stock fill does and nothing outside the mask changes."""
    canvas = Canvas(png(SOURCE), png(MASK))
    options = {"steps": 4, "guidance": 30.0}
    ours = paint(family("fill"), Order("flux-pro-1.0-fill", "a red fox", 7, 256, 192, canvas=canvas, options=options))
    more = {"num_inference_steps": 4, "guidance_scale": 30.0, "width": 256, "height": 192}
    theirs = stock("fill", "FluxFillPipeline", image=SOURCE, mask_image=MASK, **more)
    assert apart(ours, Image.composite(theirs, SOURCE, MASK)) <= 1
    outside = Image.composite(Image.new("RGB", SOURCE.size), ours, MASK)
    assert apart(outside, Image.composite(Image.new("RGB", SOURCE.size), SOURCE, MASK)) == 0
    assert apart(ours, SOURCE) > 8


def test_klein_inpaints_as_stock_klein_does(family, checkpoint) -> None:
    canvas = Canvas(png(SOURCE), png(MASK))
    ours = paint(family("klein"), Order("flux-pro-1.0-fill", "a red fox", 7, 256, 192, canvas=canvas))
    plain = diffusers.Flux2KleinPipeline.from_pretrained(str(checkpoint("klein")), local_files_only=True)
    pipe = diffusers.Flux2KleinInpaintPipeline(**plain.components, is_distilled=True)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt="a red fox",
        image=SOURCE,
        mask_image=MASK,
        strength=1.0,
        num_inference_steps=4,
        guidance_scale=1.0,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    assert apart(ours, Image.composite(theirs, SOURCE, MASK)) <= 1


@pytest.mark.parametrize("name", ["fill", "klein"])
def test_an_expanded_picture_keeps_every_pixel_of_its_source(family, name: str) -> None:
    source = photo(150, 100, 6)
    canvas = Canvas(png(source), None, (31, 17))
    wide = Order("flux-pro-1.0-expand", "", 7, 213, 141, canvas=canvas, options={"steps": 2, "guidance": 30.0})
    rendered = paint(family(name), wide)
    assert rendered.size == (213, 141)
    assert apart(rendered.crop((31, 17, 181, 117)), source) == 0
    assert apart(rendered.crop((0, 0, 213, 17)), Image.new("RGB", (213, 17), (127, 127, 127))) > 8


def test_what_is_transparent_in_a_source_is_repainted(family) -> None:
    source = SOURCE.copy()
    hollow = MASK.point(lambda level: 255 - level)
    source.putalpha(hollow)
    canvas = Canvas(png(source), None)
    rendered = paint(family("klein"), Order("flux-pro-1.0-fill", "x", 7, 256, 192, canvas=canvas))
    assert apart(rendered.crop((0, 0, 256, 40)), SOURCE.crop((0, 0, 256, 40))) == 0
    assert apart(rendered, SOURCE) > 8


def test_a_dilated_mask_repaints_more(family) -> None:
    canvas = Canvas(png(SOURCE), png(MASK))
    plain = Order("flux-tools-erase", "", 7, 256, 192, canvas=canvas)
    reference_tokens = (128, 36, 129, 46)
    rendered = paint(
        family("klein"), Order("flux-tools-erase", "", 7, 256, 192, canvas=canvas, options={"dilate_pixels": 25})
    )
    assert apart(paint(family("klein"), plain).crop(reference_tokens), SOURCE.crop(reference_tokens)) == 0
    assert apart(rendered.crop(reference_tokens), SOURCE.crop(reference_tokens)) > 0


def test_a_large_source_is_painted_small_and_kept_large(family) -> None:
    source, mask = photo(1600, 1200, 8), ellipse(1600, 1200)
    canvas = Canvas(png(source), png(mask))
    rendered = paint(family("klein", 1), Order("flux-pro-1.0-fill", "x", 7, 1600, 1200, canvas=canvas))
    assert rendered.size == (1600, 1200)
    assert apart(rendered.crop((0, 0, 1600, 300)), source.crop((0, 0, 1600, 300))) == 0


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


# What each tile of 640×512 shows: tiles have 512, and the last quarter of each blends into the next one.
SHOWN = [(0, 0, 384, 384), (384, 0, 640, 384), (0, 384, 384, 512), (384, 384, 640, 512)]


@pytest.mark.parametrize("name", ["klein", "flux1-dev", "flux3-klein"])
def test_tiles_show_the_same_picture_and_leave_the_vae_as_it_was(family, name: str) -> None:
    """Each tile is far closer to its part of the whole picture than to what lies one latent, or 8 pixels, beside it."""
    painter = family(name, 1)
    sample = finish(Loop(), painter.prepare(1, Order(painter.row.model, "a red fox", 7, 640, 512)))[0]
    with torch.no_grad():
        tiled, whole = painter.finish_in_tiles(sample), painter.finish(sample)
    assert apart(tiled, whole) > 0
    moved = [ImageChops.offset(whole, *by) for by in ((8, 0), (0, 8), (-8, 0), (0, -8))]
    for box in SHOWN:
        tile, *others = (picture.crop(box) for picture in (tiled, *moved))
        far = mean_difference(tile, whole.crop(box))
        assert far * 8 < min(mean_difference(tile, other) for other in others), (box, far)
