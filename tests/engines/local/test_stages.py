"""The stages on their threads: in any order of events, each order gets its own image or its own fault."""

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


class Recorder:
    """Records the replies of the stages, and waits for them."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self._changed = threading.Condition()

    def __call__(self, reply: Reply) -> None:
        with self._changed:
            self.replies.append(reply)
            self._changed.notify_all()

    def wait(self, kind: type, *numbers: int) -> list[Reply]:
        """Return the replies of a kind about these orders, once there is one for each."""

        def matching() -> list[Reply]:
            return [reply for reply in self.replies if isinstance(reply, kind) and reply.number in numbers]

        self.until(lambda: {reply.number for reply in matching()} == set(numbers))
        return matching()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        with self._changed:
            assert self._changed.wait_for(holds, PATIENCE), self.replies

    def steps(self, number: int) -> int:
        """Return the number of steps that were reported for an order."""
        return sum(isinstance(reply, Progressed) and reply.number == number for reply in list(self.replies))


@contextmanager
def running(family, **options: object) -> Generator[tuple[Stages, Recorder]]:
    recorder = Recorder()
    stages = Stages({"flux-2-klein-4b": family}, recorder, **options)
    thread = threading.Thread(target=stages.run)
    thread.start()
    try:
        yield stages, recorder
    finally:
        stages.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_orders_from_two_threads_all_get_their_own_pictures(family) -> None:
    klein = family("klein")
    asked = {n: replace(FOX, seed=n, prompt=f"prompt {n}", width=64 + 64 * (n % 2)) for n in range(12)}
    with running(klein) as (stages, recorder):
        halves = [
            threading.Thread(target=lambda half=half: [stages.submit(n, asked[n]) for n in asked if n % 2 == half])
            for half in (0, 1)
        ]
        for thread in halves:
            thread.start()
        done = {reply.number: reply.image for reply in recorder.wait(Done, *asked)}
        for thread in halves:
            thread.join()
    for number, order in asked.items():
        assert apart(opened(done[number]), paint(klein, order)) <= 1


def test_each_step_is_reported_and_the_share_only_grows(family) -> None:
    with running(family("klein", 5)) as (stages, recorder):
        stages.submit(1, FOX)
        recorder.wait(Done, 1)
    shares = [reply.share for reply in recorder.replies if isinstance(reply, Progressed)]
    assert shares == [pytest.approx(step / 6) for step in range(1, 6)]
    assert all(reply.preview is None for reply in recorder.replies if isinstance(reply, Progressed))


def test_previews_come_while_steps_are_left(family) -> None:
    with running(family("klein", 40), previews=True) as (stages, recorder):
        stages.submit(1, FOX)
        (first, *_) = recorder.wait(Progressed, 1)
        recorder.wait(Done, 1)
    assert first.share < 1
    assert measure(first.preview).content_type == "image/jpeg"


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp"])
def test_the_file_has_the_format_and_the_size_that_were_ordered(family, suffix: str) -> None:
    with running(family("klein", 1)) as (stages, recorder):
        stages.submit(1, replace(FOX, width=130, height=75, output_format=suffix))
        (done,) = recorder.wait(Done, 1)
    found = measure(done.image)
    assert (found.content_type, found.size) == (f"image/{suffix}", (130, 75))


def test_a_cancelled_order_gets_no_further_reply(family) -> None:
    with running(family("klein", 400)) as (stages, recorder):
        stages.submit(1, FOX)
        recorder.wait(Progressed, 1)
        stages.submit(2, replace(FOX, seed=3, width=64, height=64))
        recorder.wait(Progressed, 2)
        stages.cancel(1)
        before = recorder.steps(1)
        recorder.until(lambda: recorder.steps(2) >= 40)
        # The pass that was running when it was cancelled may still be reported.
        assert recorder.steps(1) <= before + 1
    assert not [reply for reply in recorder.replies if isinstance(reply, Done | RenderFailed) and reply.number == 1]


def test_an_image_that_cannot_be_read_fails_alone(family) -> None:
    with running(family("klein")) as (stages, recorder):
        stages.submit(1, replace(FOX, references=(b"no image",)))
        stages.submit(2, replace(FOX, references=(png(photo(64, 64)),)))
        (failed,) = recorder.wait(RenderFailed, 1)
        recorder.wait(Done, 2)
    assert failed.kind == "ValueError"


def test_a_prompt_is_encoded_once(family) -> None:
    klein = family("klein", 1)
    before = klein.encoder.runs
    with running(klein) as (stages, recorder):
        for number in range(3):
            stages.submit(number, replace(FOX, prompt="never encoded before", seed=number))
        recorder.wait(Done, 0, 1, 2)
    assert klein.encoder.runs == before + 1


def test_closing_drops_what_is_unfinished(family) -> None:
    with running(family("klein", 5000)) as (stages, recorder):
        stages.submit(1, FOX)
        recorder.wait(Progressed, 1)
    assert not [reply for reply in recorder.replies if isinstance(reply, Done)]


def threads_of(*stages: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(stages)]


def test_stages_end_when_their_replies_cannot_be_sent(family) -> None:
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
    klein, recorder = family("klein"), Recorder()
    lost = Lost(klein.pipe, klein.row, "cpu", klein.encoder)
    lost.at = stage
    stages = Stages({"flux-2-klein-4b": lost}, recorder, previews=stage == "unpack")
    stages.submit(1, FOX)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        stages.run()
    assert not [reply for reply in recorder.replies if isinstance(reply, RenderFailed)]


class Small(KleinInpaint):
    """A device that has no memory to decode a whole image, and perhaps not for a tile either."""

    tiles = True
    tried: list[bool]

    def decode(self, sample):
        self.tried.append(self.pipe.vae.use_tiling)
        if not (self.tiles and self.pipe.vae.use_tiling):
            raise torch.OutOfMemoryError
        return super().decode(sample)


@pytest.mark.parametrize("tiles", [True, False])
def test_an_image_too_large_to_decode_is_decoded_once_in_tiles(family, *, tiles: bool) -> None:
    klein, order = family("klein", 1), replace(FOX, width=640, height=512)
    small = Small(klein.pipe, klein.row, "cpu", klein.encoder)
    small.tiles, small.tried = tiles, []
    with running(small) as (stages, recorder):
        stages.submit(1, order)
        (reply,) = recorder.wait(Done if tiles else RenderFailed, 1)
    assert small.tried == [False, True]
    assert not klein.pipe.vae.use_tiling
    if tiles:
        assert 0 < apart(opened(reply.image), paint(klein, order)) < 255
    else:
        assert (reply.kind, reply.text[:7]) == ("OutOfMemoryError", "640×512")


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
    with running(Slow(klein.pipe, klein.row, "cpu", klein.encoder), previews=True) as (stages, recorder):
        stages.submit(1, FOX)
        recorder.wait(Done, 1)
    first, second, *_ = [reply.share for reply in recorder.replies if isinstance(reply, Progressed)]
    assert first < 9 / 21 <= second


class Moving(KleinInpaint):
    """Records whether the thread that reads latents has the parts to itself."""

    turn: object
    owned: list[bool]

    def unpack(self, sample, latents):
        self.owned.append(self.turn._is_owned())
        return super().unpack(sample, latents)


def test_previews_keep_away_from_parts_that_are_being_moved(family) -> None:
    klein = family("klein", 3)
    moving = Moving(klein.pipe, replace(klein.row, offload="model"), "cpu", klein.encoder)
    moving.owned = []
    with running(moving, previews=True) as (stages, recorder):
        moving.turn = stages._exclusive
        stages.submit(1, FOX)
        recorder.wait(Progressed, 1)
        recorder.wait(Done, 1)
    # One more is the decoding at the end.
    assert len(moving.owned) > 1
    assert all(moving.owned)


def test_an_order_that_comes_after_a_large_job_waits_for_one_of_its_images(family) -> None:
    with running(family("klein")) as (stages, recorder):
        large = range(MOST_SAMPLES + 30)
        for number in large:
            stages.submit(number, replace(FOX, width=64, height=64))
        stages.submit(1000, FOX)
        recorder.wait(Done, 1000, *large)
    done = [reply.number for reply in recorder.replies if isinstance(reply, Done)]
    assert done.index(1000) < MOST_SAMPLES + 10
