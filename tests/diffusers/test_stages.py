"""The stages on their threads: whatever order things come in, each order gets its own picture or its own fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

from painting import paint
from photos import apart, opened, photo, png

from fluxwerk.engines import Order
from fluxwerk.engines.diffusers.message import Came, Done, Failed, Said
from fluxwerk.engines.diffusers.stages import Stages
from fluxwerk.raster import measure

FOX = Order("flux-2-klein-4b", "a red fox", 7, 128, 128)
PATIENCE = 60


class Ear:
    """Hears what the stages tell, and waits for it."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._changed = threading.Condition()

    def __call__(self, said: Said) -> None:
        with self._changed:
            self.said.append(said)
            self._changed.notify_all()

    def wait(self, kind: type, *numbers: int) -> list[Said]:
        """Return what was said of that kind about these orders, once it was said of all."""

        def heard() -> list[Said]:
            return [said for said in self.said if isinstance(said, kind) and said.number in numbers]

        self.until(lambda: {said.number for said in heard()} == set(numbers))
        return heard()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        with self._changed:
            assert self._changed.wait_for(holds, PATIENCE), self.said

    def steps(self, number: int) -> int:
        """Return how many steps were told of an order."""
        return sum(isinstance(said, Came) and said.number == number for said in list(self.said))


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
        done = {said.number: said.picture for said in ear.wait(Done, *asked)}
        for thread in halves:
            thread.join()
    for number, order in asked.items():
        assert apart(opened(done[number]), paint(klein, order)) <= 1


def test_each_step_is_told_and_the_share_only_grows(family) -> None:
    with running(family("klein", 5)) as (stages, ear):
        stages.submit(1, FOX)
        ear.wait(Done, 1)
    shares = [said.share for said in ear.said if isinstance(said, Came)]
    assert shares == [pytest.approx(step / 6) for step in range(1, 6)]
    assert all(said.preview is None for said in ear.said if isinstance(said, Came))


def test_previews_come_while_steps_are_left(family) -> None:
    with running(family("klein", 40), previews=True) as (stages, ear):
        stages.submit(1, FOX)
        (first, *_) = ear.wait(Came, 1)
        ear.wait(Done, 1)
    assert first.share < 1
    assert measure(first.preview).content_type == "image/jpeg"


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp"])
def test_the_file_has_the_format_and_the_size_that_were_ordered(family, suffix: str) -> None:
    with running(family("klein", 1)) as (stages, ear):
        stages.submit(1, replace(FOX, width=130, height=75, output_format=suffix))
        (done,) = ear.wait(Done, 1)
    found = measure(done.picture)
    assert (found.content_type, found.size) == (f"image/{suffix}", (130, 75))


def test_a_cancelled_order_is_never_heard_of_again(family) -> None:
    with running(family("klein", 400)) as (stages, ear):
        stages.submit(1, FOX)
        ear.wait(Came, 1)
        stages.submit(2, replace(FOX, seed=3, width=64, height=64))
        ear.wait(Came, 2)
        stages.cancel(1)
        before = ear.steps(1)
        ear.until(lambda: ear.steps(2) >= 40)
        # The pass that was running when it was cancelled may still be told.
        assert ear.steps(1) <= before + 1
    assert not [said for said in ear.said if isinstance(said, Done | Failed) and said.number == 1]


def test_an_image_that_cannot_be_read_fails_alone(family) -> None:
    with running(family("klein")) as (stages, ear):
        stages.submit(1, replace(FOX, references=(b"no image",)))
        stages.submit(2, replace(FOX, references=(png(photo(64, 64)),)))
        (failed,) = ear.wait(Failed, 1)
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
        ear.wait(Came, 1)
    assert not [said for said in ear.said if isinstance(said, Done)]
