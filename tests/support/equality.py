"""How far the engine's latents are from those of the stock pipeline, for every family of weights.

    python tests/support/equality.py        # prints the table

Both sides get the same tiny checkpoint, prompt and seed, in float32 on the CPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import diffusers
import torch

from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.local.canvas import working_size
from fluxwerk.engines.local.loop import Loop
from support import tiny
from support.painting import finish
from support.photos import ellipse, opened, photo, png

if TYPE_CHECKING:
    from fluxwerk.engines.local.family import Family
    from fluxwerk.engines.local.sample import Sample

PROMPT, SEED = "a red fox", 7
SIZE, OFF_GRID = (128, 192), (100, 130)
PHOTOS = tuple(png(photo(*size, seed)) for seed, size in enumerate([(256, 128), (70, 90), (300, 200)], 1))
CANVAS = Canvas(png(photo(256, 192, 5)), png(ellipse(256, 192)))


@dataclass(frozen=True)
class Case:
    """One row of the table: a checkpoint, what is asked of it, and what the stock pipeline is given beside the prompt.

    The stock pipeline crops a size that is off the grid, and the engine renders the next larger one and shrinks it, so
    the stock pipeline is given the size that the engine renders.
    """

    checkpoint: str
    what: str
    references: int = 0
    size: tuple[int, int] = SIZE
    canvas: Canvas | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.checkpoint}, {self.what}"

    def order(self, model: str, prompt: str = PROMPT, seed: int = SEED) -> Order:
        """Return what the engine gets."""
        files = PHOTOS[: self.references]
        return Order(model, prompt, seed, *self.size, references=files, canvas=self.canvas, options=self.options)


def _guided(steps: int, guidance: float) -> dict[str, Any]:
    options = {"steps": steps, "guidance": guidance}
    return {"options": options, "given": {"num_inference_steps": steps, "guidance_scale": guidance}}


_FOUR = {"num_inference_steps": 4, "guidance_scale": 1.0}
_KV = {"num_inference_steps": 4}
_SCHNELL = {"num_inference_steps": 4, "guidance_scale": 0.0, "max_sequence_length": 256}

CASES = (
    Case("klein", "text only", given=_FOUR),
    Case("klein", "one reference", 1, given=_FOUR),
    Case("klein", "three references", 3, given=_FOUR),
    Case("klein", "size off the grid", size=OFF_GRID, given=_FOUR),
    Case("klein", "fill", size=(256, 192), canvas=CANVAS, given=_FOUR),
    Case("klein-base", "guided", **_guided(3, 4.0)),
    Case("klein-base", "not guided", **_guided(3, 1.0)),
    Case("klein-base", "guided, three references", 3, **_guided(3, 4.0)),
    Case("klein-base", "fill", size=(256, 192), canvas=CANVAS, **_guided(3, 4.0)),
    Case("klein-base", "size off the grid", size=OFF_GRID, **_guided(3, 4.0)),
    Case("klein-kv", "text only", given=_KV),
    Case("klein-kv", "one reference", 1, given=_KV),
    Case("klein-kv", "three references", 3, given=_KV),
    Case("klein-kv", "size off the grid", size=OFF_GRID, given=_KV),
    Case("dev", "text only", **_guided(3, 4.0)),
    Case("dev", "guidance 1", **_guided(3, 1.0)),
    Case("dev", "one reference", 1, **_guided(3, 4.0)),
    Case("dev", "three references", 3, **_guided(3, 4.0)),
    Case("dev", "size off the grid", size=OFF_GRID, **_guided(3, 4.0)),
    Case("flux3-klein", "text only"),
    Case("flux3-klein", "one reference", 1),
    Case("flux3-klein", "three references", 3),
    Case("flux3-klein", "size off the grid", size=OFF_GRID),
    Case("flux3-klein-base", "guided", **_guided(3, 4.0)),
    Case("flux3-klein-base", "not guided", **_guided(3, 1.0)),
    Case("flux3-klein-base", "guided, three references", 3, **_guided(3, 4.0)),
    Case("flux1-dev", "text only", **_guided(3, 3.5)),
    Case("flux1-dev", "guidance 1", **_guided(3, 1.0)),
    Case("flux1-dev", "size off the grid", size=OFF_GRID, **_guided(3, 3.5)),
    Case("flux1-schnell", "text only", given=_SCHNELL),
    Case("kontext", "text only", **_guided(3, 2.5)),
    Case("kontext", "one reference", 1, **_guided(3, 2.5)),
    Case("kontext", "guidance 1", **_guided(3, 1.0)),
    Case("kontext", "size off the grid", size=OFF_GRID, **_guided(3, 2.5)),
    Case("fill", "fill", size=(256, 192), canvas=CANVAS, **_guided(3, 30.0)),
    Case("fill", "guidance 1", size=(256, 192), canvas=CANVAS, **_guided(3, 1.0)),
)


def ours(family: Family, case: Case) -> Sample:
    """Return the finished sample of a case, rendered alone."""
    return finish(Loop(), family.prepare(1, case.order(family.row.model)))[0]


def crowded(family: Family, case: Case) -> Sample:
    """Return the finished sample of a case that shared every pass with two others."""
    model = family.row.model
    orders = [case.order(model), case.order(model, "a blue whale", 8), case.order(model, "x", 9)]
    samples = finish(Loop(budget=1e9), *(family.prepare(number, order) for number, order in enumerate(orders)))
    assert set(samples[0].passes) == {len(orders)}, samples[0].passes
    return samples[0]


def stock(folder: Path, case: Case) -> Any:
    """Return the latents of the stock pipeline."""
    if case.checkpoint.startswith("flux3"):
        return _modular(folder, case)
    pipe = _pipeline(folder, inpaint=case.canvas is not None and case.checkpoint.startswith("klein"))
    width, height = working_size(case.size)
    given = {"width": width, "height": height, "generator": torch.Generator("cpu").manual_seed(SEED), **case.given}
    images = [opened(data) for data in PHOTOS[: case.references]]
    if case.canvas is not None and case.canvas.mask is not None:
        given |= {"image": opened(case.canvas.source), "mask_image": opened(case.canvas.mask).convert("L")}
        given |= {"strength": 1.0}
    elif images:
        given["image"] = images[0] if case.checkpoint == "kontext" else images
    if case.checkpoint == "kontext":
        given["max_area"] = width * height  # otherwise it ignores width and height
    return pipe(prompt=PROMPT, output_type="latent", **given).images


def _modular(folder: Path, case: Case) -> Any:
    from fluxwerk.engines.local.modular import load_folder  # noqa: PLC0415

    pipeline = "Flux3DistilledModularPipeline" if case.checkpoint == "flux3-klein" else "Flux3ModularPipeline"
    pipe = load_folder(folder, pipeline, torch.float32)
    pipe.set_progress_bar_config(disable=True)
    given = dict(case.given)
    if "guidance_scale" in given:
        pipe.guider.guidance_scale = given.pop("guidance_scale")
    if case.references:
        given["image"] = [opened(data) for data in PHOTOS[: case.references]]
    width, height = working_size(case.size)
    generator = torch.Generator("cpu").manual_seed(SEED)
    latents = pipe(prompt=PROMPT, width=width, height=height, generator=generator, output="latents", **given)
    return latents.flatten(2).transpose(1, 2)


def difference(sample: Sample, latents: Any) -> float:
    """Return the largest difference of any latent; stock pipelines return them packed or unpacked."""
    found = sample.latents if latents.ndim == 3 else sample.family.unpack(sample, sample.latents)
    assert found.shape == latents.shape, (found.shape, latents.shape)
    return float((found - latents).abs().max())


@cache
def _pipeline(folder: Path, *, inpaint: bool) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True)
    if inpaint:
        pipe = diffusers.Flux2KleinInpaintPipeline(**pipe.components, is_distilled=pipe.config.is_distilled)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def table(folder: Callable[[str], Path], family: Callable[[str], Family]) -> list[tuple[Case, float, float, float]]:
    """Return for each case the differences, alone and in a shared pass, and the largest latent."""
    rows = []
    for case in CASES:
        latents = stock(folder(case.checkpoint), case)
        loaded = family(case.checkpoint)
        alone, shared = (difference(make(loaded, case), latents) for make in (ours, crowded))
        rows.append((case, alone, shared, float(latents.abs().max())))
    return rows


def main() -> None:
    """Print the table."""
    from fluxwerk.engines.local.load import load  # noqa: PLC0415
    from fluxwerk.engines.local.weights import read  # noqa: PLC0415

    torch.set_grad_enabled(mode=False)
    root = Path(tempfile.mkdtemp(prefix="fluxwerk-equality-"))
    folder = cache(lambda name: tiny.build(name, root / name))

    def family(name: str) -> Family:
        row = next(iter(read(str(folder(name))).rows.values()))
        return load([row], "cpu")[row.model]

    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, float32 on the CPU")  # noqa: T201
    print("| weights | case | alone | in a shared pass | largest latent |\n|---|---|---|---|---|")  # noqa: T201
    for case, alone, shared, largest in table(folder, cache(family)):
        print(f"| {case.checkpoint} | {case.what} | {alone:.1e} | {shared:.1e} | {largest:.1f} |")  # noqa: T201


if __name__ == "__main__":
    main()
