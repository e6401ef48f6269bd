"""FLUX.1 in BFL's names, whose converter in diffusers is for the true width: loaded, unpacked and rendered."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")
pytest.importorskip("gguf", reason="GGUF files need gguf: pip install 'fluxwerk[diffusers]'")

import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

from fluxwerk.engines import Order
from fluxwerk.engines.local.assembly import transformer_in
from fluxwerk.engines.local.checkpoint import COMFY_PREFIX, recognise_file
from fluxwerk.engines.local.load import load
from fluxwerk.engines.local.loop import Loop
from fluxwerk.engines.local.weights import read
from support import files, sparse
from support.painting import finish
from support.tiny import CLIP_HIDDEN, HIDDEN

# The configuration of FLUX.1 dev as BFL's folder has it, but for the numbers of blocks.
STOCK1 = {
    "patch_size": 1,
    "in_channels": 64,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
# Only these are quantised in the files that people share; the small ones around them stay as they are.
BLOCKS = "_blocks."


@pytest.fixture(scope="module")
def flux1() -> dict[str, tuple[int, ...]]:
    """The shapes of a FLUX.1 transformer of the true width with one block of each sort, as diffusers names them."""
    with torch.device("meta"):
        model = diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_flux1_in_bfls_names_becomes_what_it_was(flux1) -> None:
    """Rows are cut and stacked in their own order; one column of each matrix shows it and takes no room."""
    held = {name: torch.rand(shape[0], *(1 for _ in shape[1:])) for name, shape in flux1.items()}
    found = convert_flux_transformer_checkpoint_to_diffusers(files.bfl1(held))
    assert set(found) == set(held)
    assert all(torch.equal(found[name], held[name]) for name in held)


@pytest.mark.parametrize("comfy", [False, True])
def test_flux1_of_the_true_width_is_loaded(flux1, tmp_path, *, comfy: bool) -> None:
    shapes = {name: torch.empty(shape, device="meta") for name, shape in flux1.items()}
    prefix = COMFY_PREFIX if comfy else ""
    named = {prefix + name: ("BF16", tuple(tensor.shape)) for name, tensor in files.bfl1(shapes).items()}
    checkpoint = recognise_file(sparse.write_sparse(tmp_path / "flux1-dev.safetensors", named))
    found = transformer_in(checkpoint, torch.bfloat16)
    assert {name: tuple(tensor.shape) for name, tensor in found.state_dict().items()} == flux1
    assert found.dtype == torch.bfloat16
    released = {**STOCK1, "num_layers": 1, "num_single_layers": 1}
    assert {key: found.config[key] for key in released} == released


@pytest.mark.parametrize("guided", [True, False])
def test_fill_of_the_true_width_is_loaded(tmp_path, *, guided: bool) -> None:
    shapes = _shapes(in_channels=384, out_channels=64, guidance_embeds=guided)
    named = {name: ("BF16", tuple(tensor.shape)) for name, tensor in files.bfl1(shapes).items()}
    checkpoint = recognise_file(sparse.write_sparse(tmp_path / "flux1-fill-dev.safetensors", named))
    found = transformer_in(checkpoint, torch.bfloat16)
    assert checkpoint.kind.name == "fill"
    assert (found.config.in_channels, found.config.out_channels, found.config.guidance_embeds) == (384, 64, guided)
    assert {name: tensor.shape for name, tensor in found.state_dict().items()} == {
        name: tensor.shape for name, tensor in shapes.items()
    }


def _shapes(**config: object) -> dict:
    with torch.device("meta"):
        return diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1, **config).state_dict()


@pytest.fixture(scope="module")
def small() -> dict:
    """A schnell of the true width for the tiny text encoders, with one block of each sort, in BFL's names."""
    shapes = _shapes(guidance_embeds=False, joint_attention_dim=HIDDEN, pooled_projection_dim=CLIP_HIDDEN)
    torch.manual_seed(0)
    return files.bfl1({name: torch.randn(shape.shape).mul_(0.02) for name, shape in shapes.items()})


@pytest.fixture
def rendered(checkpoint, tmp_path) -> Callable[[Path], torch.Tensor]:
    """Return what renders one step with a file."""
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"):
        shutil.copytree(checkpoint("flux1-schnell") / part, tmp_path / part)

    def latents(file: Path) -> torch.Tensor:
        row = replace(next(iter(read(str(file)).rows.values())), steps=1)
        assert row.kind.name == "flux1-schnell"
        family = load([row], "cpu")[row.model]
        found = finish(Loop(), family.prepare(1, Order(row.model, "a red fox", 7, 64, 64)))[0].latents
        file.unlink()
        return found

    return latents


def test_quantised_files_render_close_to_the_originals(small, rendered, tmp_path) -> None:
    """Q8_0 as people share it, and ComfyUI's fp8 with scales, against the same weights in float32."""
    original = rendered(files.write(small, tmp_path / "original.safetensors", comfy=True))
    eight = rendered(files.write_gguf(small, tmp_path / "q8.gguf", "Q8_0", only=BLOCKS))
    scaled = files.scaled(small, "scale_weight")
    fp8 = rendered(files.write(scaled, tmp_path / "fp8.safetensors"))
    size = float(original.abs().mean())
    assert 0 < float((eight - original).abs().mean()) < 0.01 * size
    assert 0 < float((fp8 - original).abs().mean()) < 0.1 * size


def test_k_quants_render_as_the_values_that_they_stand_for(small, rendered, tmp_path) -> None:
    packed = {
        name: files.k_quants(tensor.shape) if tensor.ndim == 2 and BLOCKS in name else tensor
        for name, tensor in small.items()
    }
    whole = {
        name: files.unpacked(tensor, "Q4_K") if tensor.dtype == torch.uint8 else tensor
        for name, tensor in packed.items()
    }
    four = rendered(files.write_gguf(packed, tmp_path / "q4_k.gguf", "Q4_K", only=BLOCKS))
    original = rendered(files.write(whole, tmp_path / "original.safetensors"))
    assert float((four - original).abs().max()) <= 1e-3 * float(original.abs().max())
