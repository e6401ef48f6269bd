"""From folders to families: the right number format or none, LoRAs melted in, FP8, shared weights, clear refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

import diffusers
import torch

from fluxwerk.engines import Order
from fluxwerk.engines.local.load import UnloadableError, load
from fluxwerk.engines.local.row import Lora, Row
from fluxwerk.engines.local.warm import warm
from fluxwerk.engines.local.weights import read
from support import tiny
from support.painting import paint
from support.photos import apart

FOX = Order("flux-2-klein-4b", "a red fox", 7, 128, 128)


@pytest.fixture
def row(checkpoint) -> Row:
    return read(str(checkpoint("klein"))).rows["flux-2-klein-4b"]


def one(row: Row):
    return load([row], "cpu")[row.model]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", None])
def test_weights_come_in_the_format_that_was_asked_for(row: Row, dtype: str | None) -> None:
    klein = one(replace(row, dtype=dtype))
    wanted = getattr(torch, dtype or "float32")
    assert {klein.transformer.dtype, klein.pipe.vae.dtype, klein.pipe.text_encoder.dtype} == {wanted}
    assert paint(klein, FOX).size == (128, 128)


def test_rows_of_the_same_weights_share_them(row: Row) -> None:
    fill = replace(row, model="flux-pro-1.0-fill", steps=7)
    families = load([row, fill], "cpu")
    assert families["flux-2-klein-4b"].transformer is families["flux-pro-1.0-fill"].transformer
    assert families["flux-pro-1.0-fill"].row.steps == 7


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_lora_paints_as_stock_diffusers_paints_with_it(row: Row, tmp_path, scale: float) -> None:
    pytest.importorskip("peft", reason="LoRAs need peft: pip install 'fluxwerk[diffusers]'")
    file = tiny.lora(row.path, tmp_path)
    ours = paint(one(replace(row, loras=(Lora(str(file), scale),))), FOX)
    pipe = diffusers.Flux2KleinPipeline.from_pretrained(row.path, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(file), adapter_name="style")
    pipe.set_adapters(["style"], [scale])
    generator = torch.Generator("cpu").manual_seed(7)
    given = {"num_inference_steps": 4, "guidance_scale": 1.0, "generator": generator}
    theirs = pipe(prompt="a red fox", width=128, height=128, **given).images[0]
    assert apart(ours, theirs) <= 1
    assert apart(ours, paint(one(row), FOX)) > 1


def test_fp8_weights_paint_nearly_the_same(row: Row) -> None:
    small = one(replace(row, quantize="fp8"))
    stored = {part.dtype for part in small.transformer.parameters()}
    assert torch.float8_e4m3fn in stored
    difference = apart(paint(small, FOX), paint(one(row), FOX))
    assert 0 < difference < 40


def test_parts_that_wait_outside_the_device_paint_the_same(row: Row) -> None:
    offloaded = one(replace(row, offload="model"))
    assert not offloaded.is_truncated
    assert apart(paint(offloaded, FOX), paint(one(row), FOX)) <= 1


@pytest.mark.parametrize("name", ["klein", "dev", "flux1-schnell", "fill"])
def test_every_kind_gets_warm(family, name: str) -> None:
    one_step, ran = family(name, 1), set()
    parts = {"transformer": one_step.pipe.transformer, "decoder": one_step.pipe.vae.decoder}
    hooks = [part.register_forward_hook(lambda *_, title=title: ran.add(title)) for title, part in parts.items()]
    warm([one_step], 64)
    for hook in hooks:
        hook.remove()

    assert ran == set(parts)


def test_a_folder_that_misses_a_part_is_refused_by_its_name(row: Row, tmp_path) -> None:
    broken = tmp_path / "half-a-klein"
    shutil.copytree(row.path, broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(UnloadableError, match="half-a-klein cannot be loaded"):
        one(replace(row, path=str(broken)))


def test_a_part_that_ignores_the_format_is_noticed(row: Row, tmp_path) -> None:
    stubborn = tmp_path / "stubborn"
    shutil.copytree(row.path, stubborn)
    pipe = diffusers.Flux2KleinPipeline.from_pretrained(row.path, local_files_only=True)
    from fluxwerk.engines.local.load import _check  # noqa: PLC0415

    with pytest.raises(UnloadableError, match=r"transformer was loaded as torch\.float32"):
        _check(replace(row, path=str(stubborn)), pipe, torch.bfloat16)


def test_a_lora_for_other_weights_is_refused(row: Row, tmp_path) -> None:
    pytest.importorskip("peft", reason="LoRAs need peft: pip install 'fluxwerk[diffusers]'")
    from safetensors.torch import save_file  # noqa: PLC0415

    file = tmp_path / "strange.safetensors"
    save_file({"nothing.we.know.lora_A.weight": torch.zeros(2, 2)}, str(file), metadata={"format": json.dumps("pt")})
    with pytest.raises(UnloadableError, match="LoRA"):
        one(replace(row, loras=(Lora(str(file)),)))


# Runs without the variables that keep the Hub offline, and ends at the first look at a network.
ALONE = """
import os, sys
for name in [name for name in os.environ if name.endswith("_OFFLINE")]:
    del os.environ[name]

def refuse(event, given):
    if event in ("socket.getaddrinfo", "socket.connect"):
        print(event, given, flush=True)
        os._exit(3)

sys.addaudithook(refuse)
from fluxwerk.engines.local.load import load
from fluxwerk.engines.local.weights import read
for place in sys.argv[1:]:
    row = next(iter(read(place).rows.values()))
    load([row], "cpu")[row.model].encoder("a red fox")
"""


def test_loading_and_encoding_use_no_network(checkpoint, tmp_path) -> None:
    """A folder, a folder of blocks, one file with its parts beside it, and the two encoders of FLUX.1."""
    pytest.importorskip("gguf", reason="the support for files needs gguf: pip install 'fluxwerk[diffusers]'")
    from support import files  # noqa: PLC0415  (needs gguf)

    for part in ("text_encoder", "tokenizer", "vae"):
        shutil.copytree(checkpoint("klein") / part, tmp_path / part)
    file = files.write(files.tensors_of(checkpoint("klein")), tmp_path / "klein.safetensors")
    places = [*(checkpoint(name) for name in ("klein", "flux3-klein", "flux1-schnell")), file]
    ended = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, places)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
