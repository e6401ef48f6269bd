"""The step-wise loop: shared passes change nothing, faults hit whom they belong to, cancelling takes effect at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

import torch

from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.local import preview
from fluxwerk.engines.local.inpaint import KleinInpaint
from fluxwerk.engines.local.loop import Loop, OutOfMemoryError
from fluxwerk.engines.local.sample import Sample
from support.painting import finish, images, paint
from support.photos import apart, ellipse, opened, photo, png

FOX = Order("flux-2-klein-4b", "a red fox", 7, 128, 128)


def orders(count: int) -> list[Order]:
    return [replace(FOX, prompt=f"fox {number}", seed=number) for number in range(count)]


class Cramped(KleinInpaint):
    """A device that holds so many tokens and no more."""

    room = 0
    tried: list[int]

    def predict(self, samples: Sequence[Sample]) -> object:
        self.tried.append(len(samples))
        if sum(sample.tokens for sample in samples) > self.room:
            raise torch.OutOfMemoryError("injected")
        return super().predict(samples)


@pytest.fixture
def cramped(family):
    def made(room: int) -> Cramped:
        klein = family("klein")
        device = Cramped(klein.pipe, klein.row, "cpu", klein.encoder)
        device.room, device.tried = room, []
        return device

    return made


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_the_same_seed_gives_the_same_image_at_any_batch_size(family, size: int) -> None:
    klein = family("klein")
    alone = paint(klein, FOX)
    crowd = [FOX, *orders(size - 1)]
    samples = finish(Loop(), *(klein.prepare(number, order) for number, order in enumerate(crowd)))
    assert samples[0].passes == [size] * 4
    assert apart(images(samples)[0], alone) <= 1


CANVAS = Canvas(png(photo(128, 128, 5)), png(ellipse(128, 128)))


@pytest.mark.parametrize(
    ("name", "references", "canvas"),
    [
        ("klein", 2, None),
        ("klein", 0, CANVAS),
        ("klein-base", 1, None),
        ("klein-kv", 0, None),
        ("klein-kv", 2, None),
        ("dev", 1, None),
        ("flux1-dev", 0, None),
        ("flux1-schnell", 0, None),
        ("kontext", 1, None),
        ("fill", 0, CANVAS),
    ],
)
def test_in_every_family_a_shared_pass_changes_no_image(
    family, name: str, references: int, canvas: Canvas | None
) -> None:
    loaded = family(name, 2)
    files = [tuple(png(photo(96, 64, 10 * n + k)) for k in range(references)) for n in range(2)]
    asked = [
        replace(FOX, model=loaded.row.model, prompt=f"fox {n}", seed=n, references=files[n], canvas=canvas)
        for n in range(2)
    ]
    loop = Loop(budget=1e9)
    samples = finish(loop, *(loaded.prepare(number, order) for number, order in enumerate(asked)))
    assert samples[0].passes == [2, 2]
    for order, image in zip(asked, images(samples), strict=True):
        assert apart(image, paint(loaded, order)) <= 1


def test_another_seed_or_prompt_gives_another_image(family) -> None:
    klein = family("klein")
    first = paint(klein, FOX)
    assert apart(paint(klein, FOX), first) == 0
    assert apart(paint(klein, replace(FOX, seed=8)), first) > 8
    assert apart(paint(klein, replace(FOX, prompt="a blue whale")), first) > 0


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 + 7])
def test_any_whole_number_is_a_seed(family, seed: int) -> None:
    assert paint(family("klein", 1), replace(FOX, seed=seed)).size == (128, 128)


def test_orders_share_passes_and_render_the_same(family) -> None:
    """Orders that come at different times share passes and paint the same."""
    klein, loop, samples = family("klein"), Loop(), []
    arrivals = {0: [FOX], 1: orders(1), 2: [replace(FOX, references=(png(photo(96, 64)),))], 3: orders(2)[1:]}
    for tick in range(40):
        for order in arrivals.get(tick, []):
            samples.append(klein.prepare(len(samples), order))
            loop.add(samples[-1])
        loop.tick()
    assert all(sample.is_done for sample in samples)
    assert loop.passes < sum(sample.steps for sample in samples)
    for sample, image in zip(samples, images(samples), strict=True):
        assert apart(image, paint(klein, sample.order)) <= 1


def test_guidance_and_step_counts_differ_within_one_pass(family) -> None:
    dev = family("dev")
    asked = [Order("flux-2-dev", "x", n, 64, 64, options={"steps": 3 + n, "guidance": 2.0 + n}) for n in range(3)]
    samples = finish(Loop(), *(dev.prepare(number, order) for number, order in enumerate(asked)))
    assert samples[0].passes == [3, 3, 3]
    for order, image in zip(asked, images(samples), strict=True):
        assert apart(image, paint(dev, order)) <= 1


def test_a_portrait_and_a_landscape_of_as_many_tokens_stay_apart(family) -> None:
    klein = family("klein")
    shapes = [replace(FOX, width=256, height=64), replace(FOX, width=64, height=256)]
    samples = finish(Loop(), *(klein.prepare(number, order) for number, order in enumerate(shapes)))
    assert [sample.passes for sample in samples] == [[1] * 4] * 2
    for order, image in zip(shapes, images(samples), strict=True):
        assert apart(image, paint(klein, order)) <= 1


def test_references_of_other_sizes_stay_apart(family) -> None:
    klein = family("klein")
    asked = [replace(FOX, references=(png(photo(*size)),)) for size in ((128, 64), (64, 128), (128, 64))]
    samples = finish(Loop(), *(klein.prepare(number, order) for number, order in enumerate(asked)))
    assert [sample.passes[0] for sample in samples] == [2, 1, 2]


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_cancelled_order_takes_no_further_step_and_the_others_go_on(family, step: int) -> None:
    klein, loop = family("klein", 5), Loop()
    first, second = klein.prepare(1, FOX), klein.prepare(2, replace(FOX, seed=8))
    loop.add(first)
    loop.add(second)
    for _ in range(step):
        loop.tick()
    assert loop.cancel(1)
    assert not loop.cancel(1)
    while len(loop.samples):
        loop.tick()
    assert (first.step, second.step) == (step, 5)
    assert apart(images([second])[0], paint(klein, second.order)) <= 1


def test_a_batch_that_does_not_fit_is_tried_smaller(cramped, family) -> None:
    device = cramped(3 * (64 + 512))
    samples = finish(Loop(), *(device.prepare(number, order) for number, order in enumerate(orders(5))))
    assert device.tried[:2] == [5, 2]
    assert max(device.tried[1:]) <= 2
    for sample, image in zip(samples, images(samples), strict=True):
        assert sample.fault is None
        assert apart(image, paint(family("klein"), sample.order)) <= 1


def test_an_image_that_does_not_fit_alone_fails_alone(cramped) -> None:
    device, loop = cramped(64 + 512), Loop()
    large, small = device.prepare(1, replace(FOX, width=512, height=512)), device.prepare(2, FOX)
    finish(loop, large, small)
    assert isinstance(large.fault, OutOfMemoryError)
    assert "512×512" in str(large.fault)
    assert small.fault is None
    assert small.step == 4


def test_a_fault_of_one_order_does_not_hit_those_in_its_pass(family) -> None:
    klein = family("klein")

    class Picky(KleinInpaint):
        def predict(self, samples: Sequence[Sample]) -> object:
            if any(sample.order.seed == 1 for sample in samples):
                raise ValueError("not this one")
            return super().predict(samples)

    picky = Picky(klein.pipe, klein.row, "cpu", klein.encoder)
    samples = finish(Loop(), *(picky.prepare(number, order) for number, order in enumerate(orders(3))))
    assert [type(sample.fault) for sample in samples] == [type(None), ValueError, type(None)]


def test_a_preview_shows_the_picture_small(family) -> None:
    klein, loop = family("klein"), Loop()
    sample = klein.prepare(1, replace(FOX, width=512, height=256))
    loop.add(sample)
    loop.tick()
    shown = opened(preview.draw(sample, sample.estimate))
    assert shown.size == (64, 32)
    assert shown.getcolors(1) is None


class Seeing:
    """A VAE whose latents are the colours themselves, among channels that mean nothing."""

    device, dtype = "cpu", torch.float32

    def encode(self, image: torch.Tensor) -> SimpleNamespace:
        small = torch.nn.functional.avg_pool2d(image, 8)
        latents = torch.cat([torch.zeros_like(small), -2 * small.flip(1) + 0.5], dim=1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


def test_a_preview_has_the_colours_that_the_latents_stand_for() -> None:
    image = photo(128, 64, 4)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, 64, 128, 3)
    vae = Seeing()
    latents = vae.encode(pixels.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode()
    family = SimpleNamespace(pipe=SimpleNamespace(vae=vae), unpack=lambda _, latents: latents)
    shown = opened(preview.draw(SimpleNamespace(family=family), latents))
    assert shown.size == (16, 8)
    seen, true = (list(one.resize((4, 2)).tobytes()) for one in (shown, image))
    assert sum(abs(one - other) for one, other in zip(seen, true, strict=True)) / len(true) < 12
