"""The stages on their threads: whatever order things come in, each order gets its own image or its own fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

import torch

from fluxwerk.engines import Order
from fluxwerk.engines.local.inpaint import KleinInpaint
from fluxwerk.engines.local.message import Done, Progressed, RenderFailed, Reply
from fluxwerk.engines.local.stages import MOST_SAMPLES, Stages
from fluxwerk.imagefile import measure
from support.painting import paint
from support.photos import apart, opened, photo, png

FOX = Order("flux-2-klein-4b", "a red fox", 7, 128, 128)
PATIENCE = 60


class Ear:
    """Hears what the stages tell, and waits for it."""

    def __init__(self) -> None:
        self.said: list[Reply] = []
        self._changed = threading.Condition()

    def __call__(self, said: Reply) -> None:
        with self._changed:
            self.said.append(said)
            self._changed.notify_all()

    def wait(self, kind: type, *numbers: int) -> list[Reply]:
        """Return what was said of that kind about these orders, once it was said of all."""

        def heard() -> list[Reply]:
            return [said for said in self.said if isinstance(said, kind) and said.number in numbers]

        self.until(lambda: {said.number for said in heard()} == set(numbers))
        return heard()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        with self._changed:
            assert self._changed.wait_for(holds, PATIENCE), self.said

    def steps(self, number: int) -> int:
        """Return how many steps were told of an order."""
        return sum(isinstance(said, Progressed) and said.number == number for said in list(self.said))


@contextmanager
def running(family, **options: object) -> Generator[tuple[Stages, Ear]]:
    ear = Ear()
    stages = Stages({"flux-2-klein-4b": family}, ear, **options)
    thread = threading.Thread(target=stages.run)
    thread.start()
    try:
        yield stages, ear
    finally:
        stages.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_orders_from_two_threads_all_get_their_own_pictures(family) -> None:
    klein = family("klein")
    asked = {n: replace(FOX, seed=n, prompt=f"prompt {n}", width=64 + 64 * (n % 2)) for n in range(12)}
    with running(klein) as (stages, ear):
        halves = [
            threading.Thread(target=lambda half=half: [stages.submit(n, asked[n]) for n in asked if n % 2 == half])
            for half in (0, 1)
        ]
        for thread in halves:
            thread.start()
        done = {said.number: said.image for said in ear.wait(Done, *asked)}
        for thread in halves:
            thread.join()
    for number, order in asked.items():
        assert apart(opened(done[number]), paint(klein, order)) <= 1


def test_each_step_is_told_and_the_share_only_grows(family) -> None:
    with running(family("klein", 5)) as (stages, ear):
        stages.submit(1, FOX)
        ear.wait(Done, 1)
    shares = [said.share for said in ear.said if isinstance(said, Progressed)]
    assert shares == [pytest.approx(step / 6) for step in range(1, 6)]
    assert all(said.preview is None for said in ear.said if isinstance(said, Progressed))


def test_previews_come_while_steps_are_left(family) -> None:
    with running(family("klein", 40), previews=True) as (stages, ear):
        stages.submit(1, FOX)
        (first, *_) = ear.wait(Progressed, 1)
        ear.wait(Done, 1)
    assert first.share < 1
    assert measure(first.preview).content_type == "image/jpeg"


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp"])
def test_the_file_has_the_format_and_the_size_that_were_ordered(family, suffix: str) -> None:
    with running(family("klein", 1)) as (stages, ear):
        stages.submit(1, replace(FOX, width=130, height=75, output_format=suffix))
        (done,) = ear.wait(Done, 1)
    found = measure(done.image)
    assert (found.content_type, found.size) == (f"image/{suffix}", (130, 75))


def test_a_cancelled_order_is_never_heard_of_again(family) -> None:
    with running(family("klein", 400)) as (stages, ear):
        stages.submit(1, FOX)
        ear.wait(Progressed, 1)
        stages.submit(2, replace(FOX, seed=3, width=64, height=64))
        ear.wait(Progressed, 2)
        stages.cancel(1)
        before = ear.steps(1)
        ear.until(lambda: ear.steps(2) >= 40)
        # The pass that was running when it was cancelled may still be told.
        assert ear.steps(1) <= before + 1
    assert not [said for said in ear.said if isinstance(said, Done | RenderFailed) and said.number == 1]


def test_an_image_that_cannot_be_read_fails_alone(family) -> None:
    with running(family("klein")) as (stages, ear):
        stages.submit(1, replace(FOX, references=(b"no image",)))
        stages.submit(2, replace(FOX, references=(png(photo(64, 64)),)))
        (failed,) = ear.wait(RenderFailed, 1)
        ear.wait(Done, 2)
    assert failed.kind == "ValueError"


def test_a_prompt_is_encoded_once(family) -> None:
    klein = family("klein", 1)
    before = klein.encoder.runs
    with running(klein) as (stages, ear):
        for number in range(3):
            stages.submit(number, replace(FOX, prompt="never encoded before", seed=number))
        ear.wait(Done, 0, 1, 2)
    assert klein.encoder.runs == before + 1


def test_closing_drops_what_is_unfinished(family) -> None:
    with running(family("klein", 5000)) as (stages, ear):
        stages.submit(1, FOX)
        ear.wait(Progressed, 1)
    assert not [said for said in ear.said if isinstance(said, Done)]


def threads_of(*stages: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(stages)]


def test_stages_that_nobody_listens_to_end_whatever_still_waits(family) -> None:
    def tell(_: Reply) -> None:
        raise BrokenPipeError

    stages = Stages({"flux-2-klein-4b": family("klein")}, tell)
    for number in range(MOST_SAMPLES + 8):
        stages.submit(number, replace(FOX, width=64, height=64))
    with pytest.raises(BrokenPipeError):
        stages.run()
    assert threads_of("prepare", "decode", "show", "write") == []


class Lost(KleinInpaint):
    """A device that fails at one stage, as a GPU does for good after an illegal access."""

    at = ""

    def prepare(self, number: int, order: Order):
        self._fail_at("prepare")
        return super().prepare(number, order)

    def predict(self, samples):
        self._fail_at("predict")
        return super().predict(samples)

    def decode(self, sample):
        self._fail_at("decode")
        return super().decode(sample)

    def unpack(self, sample, latents):
        self._fail_at("unpack")
        return super().unpack(sample, latents)

    def _fail_at(self, stage: str) -> None:
        if stage == self.at:
            kind = getattr(torch, "AcceleratorError", RuntimeError)
            raise kind("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize("stage", ["prepare", "predict", "decode", "unpack"])
def test_a_lost_device_ends_the_process_and_fails_no_order(family, stage: str) -> None:
    klein, ear = family("klein"), Ear()
    lost = Lost(klein.pipe, klein.row, "cpu", klein.encoder)
    lost.at = stage
    stages = Stages({"flux-2-klein-4b": lost}, ear, previews=stage == "unpack")
    stages.submit(1, FOX)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        stages.run()
    assert not [said for said in ear.said if isinstance(said, RenderFailed)]


class Slow(KleinInpaint):
    """Draws its first preview from the tenth step on, and takes its last step after the second preview."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.steps, self.drawn = 0, 0
        self.tenth, self.second = threading.Event(), threading.Event()

    def predict(self, samples):
        self.steps += 1
        if self.steps == 10:
            self.tenth.set()
        if self.steps == 20:
            assert self.second.wait(PATIENCE)
        return super().predict(samples)

    def unpack(self, sample, latents):
        self.drawn += 1
        assert self.tenth.wait(PATIENCE)
        if self.drawn == 2:
            self.second.set()
        return super().unpack(sample, latents)


def test_after_a_slow_preview_the_newest_is_shown_next(family) -> None:
    klein = family("klein", 20)
    with running(Slow(klein.pipe, klein.row, "cpu", klein.encoder), previews=True) as (stages, ear):
        stages.submit(1, FOX)
        ear.wait(Done, 1)
    first, second, *_ = [said.share for said in ear.said if isinstance(said, Progressed)]
    assert first < 9 / 21 <= second


class Moving(KleinInpaint):
    """Notes whether whoever looks at latents has the parts to itself."""

    turn: object
    owned: list[bool]

    def unpack(self, sample, latents):
        self.owned.append(self.turn._is_owned())
        return super().unpack(sample, latents)


def test_previews_keep_away_from_parts_that_are_being_moved(family) -> None:
    klein = family("klein", 3)
    moving = Moving(klein.pipe, replace(klein.row, offload="model"), "cpu", klein.encoder)
    moving.owned = []
    with running(moving, previews=True) as (stages, ear):
        moving.turn = stages._exclusive
        stages.submit(1, FOX)
        ear.wait(Progressed, 1)
        ear.wait(Done, 1)
    # One more is the decoding at the end.
    assert len(moving.owned) > 1
    assert all(moving.owned)


def test_an_order_that_comes_after_a_large_job_waits_for_one_of_its_images(family) -> None:
    with running(family("klein")) as (stages, ear):
        large = range(MOST_SAMPLES + 30)
        for number in large:
            stages.submit(number, replace(FOX, width=64, height=64))
        stages.submit(1000, FOX)
        ear.wait(Done, 1000, *large)
    done = [said.number for said in ear.said if isinstance(said, Done)]
    assert done.index(1000) < MOST_SAMPLES + 10
