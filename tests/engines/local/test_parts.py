"""What a file needs beside it is found where people keep it, or named with the place where it usually lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fluxwerk.engines.local import parts
from fluxwerk.engines.local.checkpoint import recognise_file
from fluxwerk.engines.local.weights import read
from fluxwerk.errors import InvalidUsageError
from support import sparse
from support.sparse import comfy, write_sparse


@pytest.fixture
def place(tmp_path) -> Path:
    """Return a folder whose neighbours are not those of other tests."""
    return tmp_path / "home" / "models"


def test_the_folders_of_comfyui_are_searched(place) -> None:
    row = read(str(comfy(place, sparse.KLEIN_4B, 2560))).rows["flux-2-klein-4b"]
    found = {column: Path(path).relative_to(place).as_posix() for column, path in row.parts}
    assert found == {
        "text_encoder": "text_encoders/qwen_3.safetensors",
        "tokenizer": "tokenizer",
        "vae": "vae/flux2-vae.safetensors",
    }


def test_a_folder_of_diffusers_beside_the_file_is_searched(place) -> None:
    file = write_sparse(place / "klein.safetensors", sparse.KLEIN_4B)
    for part, config in (("text_encoder", {"hidden_size": 2560}), ("vae", {"latent_channels": 32})):
        (place / "FLUX.2-klein-4B" / part).mkdir(parents=True)
        (place / "FLUX.2-klein-4B" / part / "config.json").write_text(json.dumps(config))
    found, missing = parts.find(recognise_file(file), {})
    assert set(found) == {"text_encoder", "vae"}
    assert [part.column for part in missing] == ["tokenizer"]


def test_a_part_of_another_model_is_not_taken(place) -> None:
    """The encoder of klein 9B does not fit klein 4B, and the VAE of FLUX.1 does not fit FLUX.2."""
    file = comfy(place, sparse.KLEIN_4B, 4096)
    write_sparse(place / "vae" / "flux2-vae.safetensors", sparse.vae(16))
    _, missing = parts.find(recognise_file(file), {})
    assert [part.column for part in missing] == ["text_encoder", "vae"]


def test_what_is_missing_is_named_with_its_usual_place(place) -> None:
    file = write_sparse(place / "flux-2-klein-4b.safetensors", sparse.KLEIN_4B)
    with pytest.raises(InvalidUsageError) as refused:
        read(str(file))
    lines = [str(fault) for fault in refused.value.faults]
    assert lines[0] == (
        "text_encoder: is missing: flux-2-klein-4b.safetensors needs Qwen3-4B (usually the folder text_encoder of "
        "black-forest-labs/FLUX.2-klein-4B, or ComfyUI's models/text_encoders/qwen_3_4b.safetensors)"
    )
    assert [line.split(":")[0] for line in lines] == ["text_encoder", "tokenizer", "vae"]


@pytest.mark.parametrize(("named", "taken"), [("Qwen2TokenizerFast", True), ("T5TokenizerFast", False)])
def test_the_tokenizer_of_another_encoder_is_not_taken(place, named: str, *, taken: bool) -> None:
    file = comfy(place, sparse.KLEIN_4B, 2560)
    (place / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    found, _ = parts.find(recognise_file(file), {})
    assert ("tokenizer" in found) == taken


def test_a_named_part_must_fit(place) -> None:
    file = write_sparse(place / "klein.safetensors", sparse.KLEIN_4B)
    wrong = write_sparse(place / "qwen.safetensors", sparse.encoder(4096))
    with pytest.raises(InvalidUsageError, match="is 4096 wide, and Qwen3-4B must be 2560 wide"):
        parts.find(recognise_file(file), {"text_encoder": wrong})


def test_an_encoder_that_reads_images_is_not_taken_for_one_that_does_not(place) -> None:
    file = comfy(place, sparse.flux3(), 2560)
    _, missing = parts.find(recognise_file(file), {})
    assert [part.what for part in missing] == ["Qwen3-VL-4B"]


def test_an_encoder_in_a_form_that_cannot_be_read_is_passed_over(place) -> None:
    file = comfy(place, sparse.KLEIN_4B, 2560)
    four_bits = {name: ("U8", (shape[0], shape[1])) for name, (_, shape) in sparse.encoder(2560, 1).items()}
    four_bits["model.layers.0.mlp.gate_proj.weight_scale_2"] = ("F32", ())
    first = write_sparse(place / "text_encoders" / "a_qwen_3_4b_fp4.safetensors", four_bits)
    found, _ = parts.find(recognise_file(file), {})
    assert found["text_encoder"].name == "qwen_3.safetensors"
    with pytest.raises(InvalidUsageError, match=r"a_qwen_3_4b_fp4\.safetensors': is in NVFP4"):
        parts.find(recognise_file(file), {"text_encoder": first})


def test_an_encoder_in_fp8_with_scales_for_blocks_is_refused(place) -> None:
    """The official fp8 files of Qwen3 name these scales weight_scale_inv."""
    file = write_sparse(place / "klein.safetensors", sparse.KLEIN_4B)
    matrix = "model.layers.0.mlp.gate_proj.weight"
    blocks = {matrix: ("F8_E4M3", (9728, 2560)), f"{matrix}_scale_inv": ("BF16", (76, 20))}
    encoder = write_sparse(place / "qwen_3_4b_fp8.safetensors", {**sparse.encoder(2560, 1), **blocks})
    with pytest.raises(InvalidUsageError, match=r"gate_proj\.weight_scale_inv, a scale .*\(usually the folder"):
        parts.find(recognise_file(file), {"text_encoder": encoder})


def test_flux1_needs_two_encoders_and_two_tokenizers(place) -> None:
    file = write_sparse(place / "flux1-dev.safetensors", sparse.flux1())
    write_sparse(place / "t5xxl_fp16.safetensors", {"shared.weight": ("F16", (32128, 4096))})
    clip = {"text_model.embeddings.token_embedding.weight": ("F16", (49408, 768))}
    write_sparse(place / "clip_l.safetensors", clip)
    write_sparse(place / "ae.safetensors", sparse.vae(16))
    found, missing = parts.find(recognise_file(file), {})
    names = {column: path.name for column, path in found.items()}
    assert names == {
        "text_encoder": "clip_l.safetensors",
        "text_encoder_2": "t5xxl_fp16.safetensors",
        "vae": "ae.safetensors",
    }
    assert [part.column for part in missing] == ["tokenizer", "tokenizer_2"]


def test_a_table_names_parts_for_a_file_only(place) -> None:
    file = comfy(place, sparse.KLEIN_4B, 2560)
    table = place / "weights.toml"
    table.write_text(
        f'[weights.flux-2-klein-4b]\npath = "{file}"\npipeline = "klein-base"\nvae = "vae/flux2-vae.safetensors"'
    )
    row = read(str(table)).rows["flux-2-klein-4b"]
    assert (row.kind.name, row.is_file()) == ("klein-base", True)
    table.write_text('[weights.flux-2-klein-4b]\npath = "diffusion_models"\nvae = "vae/flux2-vae.safetensors"')
    with pytest.raises(InvalidUsageError, match="is for a path that is one file; a folder holds all parts"):
        read(str(table))
