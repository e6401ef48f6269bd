"""`fluxwerk weights inspect` says what a file is and what it needs, and writes a table that can be served."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group
from fluxwerk.engines.local.weights import read
from support import sparse
from support.sparse import comfy, write_sparse


@pytest.fixture
def place(tmp_path) -> Path:
    """Return a folder whose neighbours are not those of other tests."""
    return tmp_path / "home" / "models"


def run(*given: object):
    return CliRunner().invoke(group, ["weights", "inspect", *map(str, given)])


def test_a_file_is_described(place) -> None:
    result = run(comfy(place, sparse.KLEIN_4B, 2560))
    assert result.exit_code == 0
    said = {line[:16].strip(): line[16:] for line in result.output.splitlines()}
    assert said["kind"].startswith("klein by the name of the file")
    assert said["transformer"] == "Flux2Transformer2DModel, 3.88 billion parameters"
    assert said["memory"] == "7.8 GB as it is loaded on a GPU; the file has 7.8 GB"
    assert said["serves"] == "flux-2-klein-4b"
    assert said["licence"] == "Apache-2.0"
    assert said["vae"] == f"found: {place / 'vae' / 'flux2-vae.safetensors'}"


def test_what_is_missing_is_described(place) -> None:
    result = run(write_sparse(place / "flux2-dev.safetensors", sparse.DEV))
    assert (
        "vae             missing: FLUX.2 VAE; usually the folder vae of black-forest-labs/FLUX.2-dev" in result.output
    )


FP8 = sparse.flux2(5, 20, 3072, 7680, dtype="F8_E4M3")
SCALED = {
    "scaled_fp8": ("F8_E4M3", (2,)),
    **FP8,
    **{f"{name[:-7]}.scale_weight": ("F32", ()) for name in FP8 if name.endswith(".weight")},
}
COMFY = {f"model.diffusion_model.{name}": shape for name, shape in sparse.KLEIN_9B.items()}


@pytest.mark.parametrize(
    ("name", "shapes", "kind", "precision", "layout", "billions", "gigabytes"),
    [
        ("flux-2-klein-9b-kv", COMFY, "klein-kv", "bfloat16", "comfyui", 9.08, 18.2),
        ("flux2-dev", sparse.DEV, "dev", "bfloat16", "bfl", 32.22, 64.4),
        ("klein_fp8_scaled", SCALED, "klein", "fp8", "bfl", 3.88, 7.8),
    ],
)
def test_each_kind_of_file_is_described(
    place, name: str, shapes: sparse.Shapes, kind: str, precision: str, layout: str, billions: float, gigabytes: float
) -> None:
    found = json.loads(run("--json", write_sparse(place / f"{name}.safetensors", shapes)).output)
    assert (found["kind"], found["precision"], found["layout"]) == (kind, precision, layout)
    assert found["parameters"] / 10**9 == pytest.approx(billions, abs=0.005)
    assert found["bytes_in_memory"] / 10**9 == pytest.approx(gigabytes, abs=0.05)


def test_a_gguf_file_is_described(place) -> None:
    pytest.importorskip("gguf", reason="GGUF files need gguf: pip install 'fluxwerk[diffusers]'")
    file = sparse.write_sparse_gguf(place / "flux1-dev-Q4_K_S.gguf", sparse.flux1(), "Q4_K")
    found = json.loads(run("--json", file).output)
    assert (found["kind"], found["precision"], found["layout"]) == ("flux1-dev", "GGUF Q4_K", "bfl")
    assert found["bytes_in_memory"] == found["bytes"]
    # The few matrices outside the blocks are in float32.
    assert 144 / 256 < found["bytes"] / found["parameters"] < 0.7


def test_json_says_the_same(place) -> None:
    result = run("--json", write_sparse(place / "flux-3.safetensors", sparse.flux3()))
    found = json.loads(result.output)
    assert (found["kind"], found["told_by"], found["licence"]) == ("flux3-klein", "tensors", "FLUX Kommunity License")
    assert set(found["missing"]) == {"text_encoder", "tokenizer", "vae"}


def test_the_table_that_is_written_can_be_read(place) -> None:
    file, table = comfy(place, sparse.KLEIN_4B, 2560), place / "weights.toml"
    assert run(file, "--pipeline", "klein-base", "--write", table).exit_code == 0
    row = read(str(table)).rows["flux-2-klein-4b"]
    assert (row.path, row.kind.name) == (str(file), "klein-base")
    assert run(file, "--write", table).exit_code == 2


def test_missing_parts_are_comments_of_the_table(place) -> None:
    table = place / "weights.toml"
    result = run(write_sparse(place / "klein.safetensors", sparse.KLEIN_4B), "--write", table)
    assert "fill in 3 parts" in result.output
    text = table.read_text()
    assert '# vae = "…"' in text
    assert set(tomllib.loads(text)["weights"]["flux-2-klein-4b"]) == {"path", "pipeline"}


def test_a_spoilt_file_beside_is_passed_over(place) -> None:
    file = write_sparse(place / "klein.safetensors", sparse.KLEIN_4B)
    (place / "other.safetensors").write_bytes(b"\x0d\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{"x":1}}')
    result = run(file)
    assert result.exit_code == 0
    assert "vae             missing" in result.output


def test_a_table_that_cannot_be_written_is_an_error(place) -> None:
    result = run(write_sparse(place / "klein.safetensors", sparse.KLEIN_4B), "--write", place / "none" / "weights.toml")
    assert result.exit_code == 2
    assert "cannot be written: No such file or directory (give a file in a folder" in result.output


def test_a_file_that_holds_something_else_is_an_error(place) -> None:
    result = run(write_sparse(place / "ae.safetensors", sparse.vae(32)))
    assert result.exit_code == 2
    assert "it looks like a VAE: name it as vae" in result.output
