"""Weights as people find them: a single file, whichever layout and form, renders as its folder does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")
pytest.importorskip("gguf", reason="GGUF files need gguf: pip install 'fluxwerk[diffusers]'")

import torch
from safetensors.torch import load_file

from fluxwerk.engines import Canvas, Order
from fluxwerk.engines.local.load import UnloadableError, load
from fluxwerk.engines.local.loop import Loop
from fluxwerk.engines.local.weights import read
from support import files
from support.equality import SEED
from support.painting import finish, paint
from support.photos import apart, ellipse, photo, png

# The same numbers at another place in memory may be added in another order.
BOUND = 1e-5
REFERENCE = png(photo(96, 64))


def latents(family, model: str):
    order = Order(model, "a red fox", SEED, 128, 128, references=(REFERENCE,))
    return finish(Loop(), family.prepare(1, order))[0].latents


@pytest.fixture
def beside(checkpoint, tmp_path) -> Callable[..., Path]:
    """Return what writes a file of a checkpoint, with the folders of its other parts beside it."""

    def made(name: str, file: str, write: Callable[[dict, Path], Path]) -> Path:
        for part in ("text_encoder", "tokenizer", "vae"):
            shutil.copytree(checkpoint(name) / part, tmp_path / part, dirs_exist_ok=True)
        return write(files.tensors_of(checkpoint(name)), tmp_path / file)

    return made


def loaded(file: Path):
    row = next(iter(read(str(file)).rows.values()))
    return load([row], "cpu")[row.model]


@pytest.mark.parametrize("name", ["klein", "klein-base", "klein-kv", "dev", "flux3-klein", "flux3-klein-base"])
@pytest.mark.parametrize("comfy", [False, True])
def test_a_file_renders_as_its_folder_does(beside, family, name: str, *, comfy: bool) -> None:
    one = loaded(beside(name, f"{name}.safetensors", lambda tensors, file: files.write(tensors, file, comfy=comfy)))
    other = family(name)
    assert one.row.kind.name == name
    assert one.row.model == other.row.model
    assert float((latents(one, one.row.model) - latents(other, other.row.model)).abs().max()) <= BOUND


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("spelling", ["scale_weight", "weight_scale"])
def test_the_scales_beside_an_fp8_weight_count(beside, family, spelling: str, *, rows: bool) -> None:
    """fp8 weights with one scale each, or one for each row, render close to the originals under either name."""

    def write(held: dict, file: Path) -> Path:
        return files.write(files.scaled(held, spelling, rows=rows), file)

    one = loaded(beside("klein", "k.safetensors", write))
    far = (latents(one, one.row.model) - latents(family("klein"), "flux-2-klein-4b")).abs()
    assert 0 < float(far.mean()) < 0.02


@pytest.mark.parametrize(("form", "most"), [("F32", BOUND), ("Q8_0", 0.01), ("Q4_0", 0.1)])
@pytest.mark.parametrize("name", ["klein", "flux3-klein"])
def test_gguf_renders_close_to_its_folder(beside, family, name: str, form: str, most: float) -> None:
    one = loaded(beside(name, f"{name}.gguf", lambda tensors, file: files.write_gguf(tensors, file, form)))
    other = family(name)
    far = (latents(one, one.row.model) - latents(other, other.row.model)).abs()
    assert float(far.mean()) <= most
    assert form == "F32" or float(far.mean()) > BOUND


def test_a_vae_and_an_encoder_may_be_files_too(checkpoint, family, tmp_path) -> None:
    """The folders of ComfyUI: one file each for transformer, text encoder and VAE, and a tokenizer."""
    folder = checkpoint("klein")
    file = files.write(files.tensors_of(folder), tmp_path / "diffusion_models" / "klein.safetensors")
    files.write(files.vae_of(folder), tmp_path / "vae" / "flux2-vae.safetensors")
    held = load_file(folder / "text_encoder" / "model.safetensors")
    files.write(held, tmp_path / "text_encoders" / "qwen_3.safetensors")
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer")
    one = loaded(file)
    assert dict(one.row.parts)["vae"].endswith("flux2-vae.safetensors")
    order = Order(one.row.model, "a red fox", SEED, 128, 128, references=(REFERENCE,))
    assert apart(paint(one, order), paint(family("klein"), order)) <= 1


def test_an_encoder_with_a_scale_that_fits_nothing_is_refused(checkpoint, tmp_path) -> None:
    folder = checkpoint("klein")
    file = files.write(files.tensors_of(folder), tmp_path / "diffusion_models" / "klein.safetensors")
    for part in ("tokenizer", "vae"):
        shutil.copytree(folder / part, tmp_path / part)
    held = load_file(folder / "text_encoder" / "model.safetensors")
    name = "model.layers.0.mlp.gate_proj.weight_scale_inv"
    files.write({**held, name: torch.ones(1, 1)}, tmp_path / "text_encoders" / "qwen_3.safetensors")
    with pytest.raises(UnloadableError, match=rf"qwen_3\.safetensors holds {name}, a scale .* take its bfloat16"):
        loaded(file)


@pytest.mark.parametrize("name", ["flux1-dev", "flux1-schnell", "kontext", "fill"])
def test_clip_and_t5_may_be_files_too(checkpoint, family, tmp_path, name: str) -> None:
    """FLUX.1 in the folders of ComfyUI, its transformer as diffusers saves it."""
    folder = checkpoint(name)
    shutil.copytree(folder / "transformer", tmp_path / "diffusion_models")
    file = tmp_path / "diffusion_models" / "diffusion_pytorch_model.safetensors"
    file = file.rename(file.with_name(f"{name}.safetensors"))
    clip, t5 = files.encoders_of(folder)
    whole = {**clip, "logit_scale": torch.ones(())}
    files.write(whole, tmp_path / "text_encoders" / "clip_l.safetensors")
    files.write(t5, tmp_path / "text_encoders" / "t5xxl_fp16.safetensors")
    files.write(files.vae_of(folder), tmp_path / "vae" / "ae.safetensors")
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(folder / part, tmp_path / part)
    one, other = loaded(file), family(name)
    assert all(Path(path).is_file() for part, path in one.row.parts if not part.startswith("tokenizer"))
    canvas = Canvas(png(photo(128, 128)), png(ellipse(128, 128))) if name == "fill" else None
    order = Order(one.row.model, "a red fox", SEED, 128, 128, canvas=canvas, options={"steps": 4})
    assert apart(paint(one, order), paint(other, order)) <= 1
    for prompt in ("a red fox", ""):
        mine, theirs = one.encode(prompt), other.encode(prompt)
        assert float((mine.embeds - theirs.embeds).abs().max()) <= BOUND
        assert float((mine.pooled - theirs.pooled).abs().max()) <= BOUND


def test_a_file_without_some_tensors_is_refused(beside) -> None:
    def broken(tensors: dict, file: Path) -> Path:
        tensors.pop("single_blocks.1.linear2.weight")
        return files.write(tensors, file)

    with pytest.raises(UnloadableError, match=r"klein\.safetensors cannot be loaded: it lacks tensors"):
        loaded(beside("klein", "klein.safetensors", broken))
