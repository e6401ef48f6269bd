"""Full-size FLUX.2 [klein] 4B with random weights on a GPU: our loop beside stock diffusers, and the lower bounds.

    python bench/gpu.py                                    # one GPU, 18 GB in bfloat16, no download, ten minutes
    python bench/gpu.py --compile
    python bench/gpu.py --tiny --device cpu --sizes 128:1,64:1,64:2 --repeat 1    # does it run?

Speed does not depend on the values of the weights, and the images are noise.  Both sides start from new prompts and end
with PNG files.  The lower bounds are arithmetic: the multiplications of klein 4B at 790 TFLOP/s, and its bytes at
4.8 TB/s, as an H200 has them; `--flops` and `--bandwidth` set those of another card.  A case that does not fit into the
memory of the GPU, or into the minutes that are left, is `nan`.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import diffusers
import torch
import transformers

from fluxwerk.engines import Order
from fluxwerk.engines.codec import encode
from fluxwerk.engines.local.inpaint import KleinInpaint
from fluxwerk.engines.local.kind import KINDS
from fluxwerk.engines.local.message import Done, RenderFailed
from fluxwerk.engines.local.row import Row
from fluxwerk.engines.local.stages import Stages
from support import tiny

MODEL = "flux-2-klein-4b"
STEPS = 4
BLOCKS, WIDTH, TEXT_TOKENS = 25, 3072, 512
FLOOR_RATE, BANDWIDTH = 790e12, 4.8e12
# TFLOP of the whole text encoder for 512 tokens, and of the VAE's decoder for a pixel.
TEXT_WORK, DECODER_WORK = 4.2e12, 10.5e12 / 1024**2
# Bytes of the weights in bfloat16: transformer, text encoder and decoder.
TRANSFORMER_BYTES, TEXT_BYTES, DECODER_BYTES = 7.75e9, 8.04e9, 0.1e9
# Seconds after which a case is not repeated again.
LONGEST_CASE = 20.0


def multiplying(side: int, rate: float) -> float:
    """Return the least number of seconds for the multiplications of an image of that side."""
    tokens = (side // 16) ** 2 + TEXT_TOKENS
    step = 26 * BLOCKS * WIDTH**2 * tokens + 4 * BLOCKS * WIDTH * tokens**2
    return float(STEPS * step + DECODER_WORK * side**2 + TEXT_WORK) / rate


def moving(bandwidth: float) -> float:
    """Return the least number of seconds for reading the weights of one image alone, once for each step."""
    return (STEPS * TRANSFORMER_BYTES + TEXT_BYTES + DECODER_BYTES) / bandwidth


def random_klein(device: str) -> Any:
    """Build the real architecture on the device, without files."""
    config = transformers.Qwen3Config(
        vocab_size=151936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        transformer = diffusers.Flux2Transformer2DModel(
            num_layers=5,
            num_single_layers=20,
            num_attention_heads=24,
            joint_attention_dim=7680,
            guidance_embeds=False,
        )
    transformer = transformer.to(torch.bfloat16).to_empty(device=device)
    for weight in transformer.parameters():
        weight.normal_(0, 0.02)
    assert not list(transformer.buffers()), "a buffer would hold whatever was in the memory"
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        text_encoder = transformers.Qwen3ForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    return diffusers.Flux2KleinPipeline(
        scheduler=tiny.scheduler(),
        vae=diffusers.AutoencoderKLFlux2().to(device, torch.bfloat16).eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tiny.qwen(),
        transformer=transformer.eval(),
        is_distilled=True,
    )


def tiny_klein(device: str) -> Any:
    """Build a tiny pipeline, to check that this program runs."""
    folder = tiny.build("klein", Path(tempfile.mkdtemp(prefix="fluxwerk-bench-")) / "klein")
    return diffusers.Flux2KleinPipeline.from_pretrained(str(folder), local_files_only=True).to(device)


def stock(pipe: Any, side: int, batch: int, prompts: list[str]) -> None:
    """Make a batch and its PNG files with the stock pipeline."""
    images = pipe(
        prompt=prompts,
        width=side,
        height=side,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in range(batch)],
    ).images
    for image in images:
        encode(image, "png")


class Ours:
    """Our stages: submit a batch of orders at once and wait for all of them."""

    def __init__(self, pipe: Any, device: str) -> None:
        self.family = KleinInpaint(pipe, Row(MODEL, "random", KINDS["klein"]), device)
        self._left = 0
        self._failed = False
        self._done = threading.Condition()
        self._numbers = count()
        self.stages = Stages({MODEL: self.family}, self._receive)
        self._thread = threading.Thread(target=self.stages.run)
        self._thread.start()

    def __call__(self, side: int, batch: int, prompts: list[str]) -> None:
        """Make a batch; raises `torch.OutOfMemoryError` if one of it does not fit."""
        self._left, self._failed = batch, False
        for prompt, seed in zip(prompts, range(batch), strict=True):
            self.stages.submit(next(self._numbers), Order(MODEL, prompt, seed, side, side))
        with self._done:
            self._done.wait_for(lambda: self._left == 0)
        if self._failed:
            raise torch.OutOfMemoryError

    def close(self) -> None:
        """End the threads."""
        self.stages.close()
        self._thread.join()

    def _receive(self, reply: object) -> None:
        if isinstance(reply, RenderFailed):
            print(f"failed: {reply.kind}: {reply.text}", file=sys.stderr)
            self._failed = True
        if isinstance(reply, Done | RenderFailed):
            with self._done:
                self._left -= 1
                self._done.notify_all()


FRESH = count()


class Clock:
    """The minutes that the program may take in all."""

    def __init__(self, minutes: float) -> None:
        self.end = time.perf_counter() + 60 * minutes

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.perf_counter()


def measure(
    make: Callable[[int, int, list[str]], None], side: int, batch: int, repeat: int, clock: Clock
) -> tuple[float, float]:
    """Return the seconds of the first batch, and the median of the later ones; not a number where there is none."""
    taken: list[float] = []
    begun = time.perf_counter()
    try:
        for _ in range(repeat + 1):
            slow = taken and time.perf_counter() - begun > LONGEST_CASE
            if slow or clock.left() < (taken[-1] if taken else 0.0):
                break
            prompts = [f"prompt {next(FRESH)}" for _ in range(batch)]
            start = time.perf_counter()
            make(side, batch, prompts)
            taken.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        return math.nan, math.nan
    return (taken or [math.nan])[0], statistics.median(taken[1:]) if len(taken) > 1 else math.nan


def report(side: int, batch: int, slow: float, fast: float, alone: float, bound: float) -> None:
    """Print one line."""
    share = f"{bound * batch / fast:8.0%}" if bound else f"{'–':>8}"
    print(
        f"{side:5} {batch:5}  {slow * 1e3:9.0f} {batch / slow:8.2f}  {fast * 1e3:9.0f} {batch / fast:8.2f}"
        f"  {slow / fast:8.2f} {alone * batch / fast:10.2f} {share}",
        flush=True,
    )


def peak(device: str) -> str:
    """Return the most memory since the last call."""
    if not device.startswith("cuda"):
        return "not measured on a CPU"
    most = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return f"{most / 1e9:.1f} GB"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--sizes", default="1024:1,512:1,512:2,512:4,512:8,512:16,512:32", help="SIDE:REQUESTS,...")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=9.0, help="longest time in all")
    parser.add_argument("--flops", type=float, default=FLOOR_RATE, help="bfloat16 multiplications a second")
    parser.add_argument("--bandwidth", type=float, default=BANDWIDTH, help="bytes a second")
    parser.add_argument("--compile", action="store_true", help="compile the transformer for both sides")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    clock, begun = Clock(given.minutes), time.perf_counter()
    pipe = (tiny_klein if given.tiny else random_klein)(given.device)
    pipe.set_progress_bar_config(disable=True)
    if given.compile:
        # As in the engine: each layout of a batch is a program of its own, and the default limit is eight.
        torch._dynamo.config.cache_size_limit = 64  # noqa: SLF001  (its own way to set it)
        pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=True)
    built = time.perf_counter() - begun
    card = torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else platform.processor()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {card or 'CPU'}, torch {torch.__version__}, diffusers {diffusers.__version__}"
    )
    print(f"{'tiny' if given.tiny else 'full-size'} klein 4B, random weights{', compiled' if given.compile else ''}")
    cases = [(int(side), int(batch)) for side, batch in (text.split(":") for text in given.sizes.split(","))]
    print(f"weights made on the device in {built:.1f} s; their memory: {peak(given.device)}")
    alone = {side: measure(lambda *a: stock(pipe, *a), side, 1, given.repeat, clock) for side in dict(cases)}
    slow = {
        case: alone[case[0]][1] if case[1] == 1 else measure(lambda *a: stock(pipe, *a), *case, given.repeat, clock)[1]
        for case in cases
    }
    print(f"stock: first image after {alone[cases[0][0]][0]:.2f} s; memory: {peak(given.device)}", flush=True)
    # Built after stock was measured: it truncates the text encoder, which would make stock faster too.
    ours = Ours(pipe, given.device)
    print(f"{'':12} {'stock':>18}  {'fluxwerk':>18}  {'against':>8} {'stock one':>10} {'share of':>8}")
    print(" side batch         ms images/s         ms images/s     stock at a time    bound")
    firsts: list[float] = []
    for side, batch in cases:
        first, fast = measure(ours, side, batch, given.repeat, clock)
        firsts.append(first)
        least = 0.0 if given.tiny else max(multiplying(side, given.flops), moving(given.bandwidth) / batch)
        report(side, batch, slow[side, batch], fast, alone[side][1], least)
    ours.close()
    print(f"fluxwerk: first image after {firsts[0]:.2f} s; memory: {peak(given.device)}")
    if not given.tiny:
        side = cases[0][0]
        by_work, by_bytes = multiplying(side, given.flops) * 1e3, moving(given.bandwidth) * 1e3
        print(f"lower bounds of one {side}×{side}: {by_work:.0f} ms by multiplications, {by_bytes:.0f} ms by bytes")


if __name__ == "__main__":
    main()
