"""The step loop against stock diffusers, one image at a time, on a fixed trace of arrivals: tiny weights, CPU.

    python bench/engine.py [--images 48] [--gap 0.02] [--repeat 3]

It shows how many forward passes are shared. How much faster a shared pass is depends on the device, and a CPU with tiny
weights says little about a GPU with real ones; bench/gpu.py measures that.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import diffusers
import torch

from fluxwerk.engines import Order
from fluxwerk.engines.codec import encode
from fluxwerk.engines.local.canvas import flatten
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.load import load
from fluxwerk.engines.local.message import Done
from fluxwerk.engines.local.stages import Stages
from fluxwerk.engines.local.weights import read
from support import tiny
from support.photos import photo, png

MODEL = "flux-2-klein-4b"
# Sizes by their frequency: mostly small ones, as on a busy service.
SIZES = [(64, 64)] * 4 + [(128, 128)] * 4 + [(192, 128)] * 2 + [(256, 256)] * 2
WITH_REFERENCE = 0.25


@dataclass(frozen=True, slots=True)
class Arrival:
    """An order and its arrival, in seconds after the first."""

    at: float
    order: Order


@dataclass(slots=True)
class Figures:
    """The result of a run: seconds from the first arrival to the last image, and seconds of each image."""

    whole: float
    each: list[float]
    passes: int


def trace(images: int, gap: float) -> list[Arrival]:
    """Return the same arrivals in every run, at random intervals of `gap` seconds on average."""
    generator = random.Random(6)
    arrivals, now = [], 0.0
    for number in range(images):
        width, height = generator.choice(SIZES)
        references = (png(photo(96, 64, number)),) if generator.random() < WITH_REFERENCE else ()
        order = Order(MODEL, f"prompt {number % 7}", number, width, height, references=references)
        arrivals.append(Arrival(now, order))
        now += generator.expovariate(1 / gap)
    return arrivals


def one_at_a_time(folder: Path, arrivals: list[Arrival]) -> Figures:
    """Make each image with the stock pipeline when the one before is done."""
    pipe = diffusers.Flux2KleinPipeline.from_pretrained(str(folder), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    passes = count_calls(pipe.transformer)
    stock_image(pipe, arrivals[0].order)
    passes.clear()
    start, each = time.perf_counter(), []
    for arrival in arrivals:
        time.sleep(max(0.0, arrival.at - (time.perf_counter() - start)))
        encode(stock_image(pipe, arrival.order), "png")
        each.append(time.perf_counter() - start - arrival.at)
    return Figures(time.perf_counter() - start, each, len(passes))


def stock_image(pipe: Any, order: Order) -> Any:
    """Make one image with the stock pipeline."""
    return pipe(
        prompt=order.prompt,
        image=[flatten(data) for data in order.references] or None,
        width=order.width,
        height=order.height,
        num_inference_steps=4,
        guidance_scale=1.0,
        generator=torch.Generator("cpu").manual_seed(order.seed),
    ).images[0]


def through_the_loop(family: Family, arrivals: list[Arrival]) -> Figures:
    """Make all images with the stages of the engine."""
    done: dict[int, float] = {}
    finished = threading.Event()

    def receive(reply: object) -> None:
        if isinstance(reply, Done):
            done[reply.number] = time.perf_counter() - start
            if len(done) == len(arrivals):
                finished.set()

    passes = count_calls(family.transformer)
    stages = Stages({MODEL: family}, receive)
    thread = threading.Thread(target=stages.run)
    thread.start()
    start = time.perf_counter()
    for number, arrival in enumerate(arrivals):
        time.sleep(max(0.0, arrival.at - (time.perf_counter() - start)))
        stages.submit(number, arrival.order)
    finished.wait()
    whole = time.perf_counter() - start
    stages.close()
    thread.join()
    return Figures(whole, [done[number] - arrival.at for number, arrival in enumerate(arrivals)], len(passes))


def count_calls(module: Any) -> list[int]:
    """Return a list that grows by one with each forward pass."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def show(name: str, runs: list[Figures], images: int) -> Figures:
    """Print the fastest run, which other work disturbed least, and the range of all."""
    best = min(runs, key=lambda run: run.whole)
    spread = f"{best.whole:.2f}–{max(run.whole for run in runs):.2f} s"
    wait = statistics.mean(best.each)
    print(f"{name:22} {best.passes:8} {best.whole:8.2f} s {spread:>16} {images / best.whole:9.2f} {wait:10.2f} s")
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--gap", type=float, default=0.02, help="mean seconds between arrivals")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    folder = tiny.build("klein", Path(tempfile.mkdtemp(prefix="fluxwerk-bench-")) / "klein")
    arrivals = trace(given.images, given.gap)
    stock, ours = [], []
    for _ in range(given.repeat):
        stock.append(one_at_a_time(folder, arrivals))
        rows = read(str(folder)).rows.values()
        ours.append(through_the_loop(load(rows, "cpu")[MODEL], arrivals))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}, diffusers {diffusers.__version__}")
    print(f"tiny klein, {given.images} images, one every {given.gap} s on average, best of {given.repeat} runs each")
    print(f"{'':22} {'passes':>8} {'all':>10} {'range':>16} {'images/s':>9} {'mean wait':>12}")
    slow = show("stock, one at a time", stock, given.images)
    fast = show("fluxwerk's loop", ours, given.images)
    waits = statistics.mean(slow.each) / statistics.mean(fast.each)
    saved, rate = 1 - fast.passes / slow.passes, slow.whole / fast.whole
    print(
        f"{saved:.0%} of the forward passes saved, {rate:.2f} times the images/s, mean wait {waits:.2f} times shorter"
    )


if __name__ == "__main__":
    main()
