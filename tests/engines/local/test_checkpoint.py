"""A file of weights says what it is: by its tensors, and where they do not tell, by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxwerk.engines.local.checkpoint import COMFY_PREFIX, recognise_file
from fluxwerk.errors import InvalidUsageError
from support import sparse
from support.sparse import write_sparse


@pytest.mark.parametrize(
    ("name", "shapes", "kind", "told"),
    [
        ("flux-2-klein-4b", sparse.KLEIN_4B, "klein", False),
        ("flux-2-klein-base-4b", sparse.KLEIN_4B, "klein-base", False),
        ("flux-2-klein-9b-kv", sparse.KLEIN_9B, "klein-kv", False),
        ("flux2-dev", sparse.DEV, "dev", True),
        ("flux1-dev", sparse.flux1(), "flux1-dev", False),
        ("flux1-kontext-dev", sparse.flux1(), "kontext", False),
        ("flux1-schnell", sparse.flux1(guidance=False), "flux1-schnell", True),
        ("flux1-fill-dev", sparse.flux1(384), "fill", True),
        ("flux-3-image-klein", sparse.flux3(), "flux3-klein", True),
        ("flux-3-image-klein-base", sparse.flux3(distilled=False), "flux3-klein-base", True),
    ],
)
def test_a_file_says_its_kind(tmp_path, name: str, shapes: sparse.Shapes, kind: str, *, told: bool) -> None:
    found = recognise_file(write_sparse(tmp_path / f"{name}.safetensors", shapes))
    assert (found.kind.name, found.told, found.layout, found.precision) == (kind, told, "bfl", "bfloat16")


@pytest.mark.parametrize(
    ("shapes", "billions"), [(sparse.KLEIN_4B, 3.876), (sparse.KLEIN_9B, 9.079), (sparse.DEV, 32.22)]
)
def test_the_shapes_give_the_known_numbers_of_parameters(tmp_path, shapes: sparse.Shapes, billions: float) -> None:
    found = recognise_file(write_sparse(tmp_path / "one.safetensors", shapes))
    assert found.parameters / 10**9 == pytest.approx(billions, abs=0.005)
    assert found.size == 2 * found.parameters


def test_the_configuration_follows_from_the_shapes(tmp_path) -> None:
    config = recognise_file(write_sparse(tmp_path / "one.safetensors", sparse.KLEIN_9B)).config
    assert config["num_layers"], config["num_single_layers"] == (8, 24)
    assert (config["num_attention_heads"], config["attention_head_dim"]) == (32, 128)
    assert (config["joint_attention_dim"], config["guidance_embeds"]) == (12288, False)


def test_the_prefix_of_comfyui_is_taken_off(tmp_path) -> None:
    shapes = {COMFY_PREFIX + name: shape for name, shape in sparse.KLEIN_4B.items()}
    other = {"vae.decoder.conv_in.weight": ("F32", (512, 32, 3, 3))}
    found = recognise_file(write_sparse(tmp_path / "one.safetensors", {**shapes, **other}))
    assert (found.layout, found.kind.name) == ("comfyui", "klein")
    assert found.size == 2 * found.parameters


def test_scales_are_no_parameters(tmp_path) -> None:
    shapes = sparse.flux2(5, 20, 3072, 7680, dtype="F8_E4M3")
    scales = {f"{name.removesuffix('.weight')}.weight_scale": ("F32", ()) for name in shapes if "weight" in name}
    found = recognise_file(write_sparse(tmp_path / "one.safetensors", {**shapes, **scales}))
    assert (found.precision, round(found.parameters / 10**9, 2)) == ("fp8", 3.88)
    assert not found.stays_quantised


@pytest.mark.parametrize("shape", [(), (1,), (3072,), (3072, 1)])
def test_fp8_with_one_scale_or_one_for_each_row_is_taken(tmp_path, shape: tuple[int, ...]) -> None:
    shapes = {**sparse.KLEIN_4B, "img_in.weight": ("F8_E4M3", (3072, 128)), "img_in.weight_scale": ("F32", shape)}
    assert recognise_file(write_sparse(tmp_path / "klein.safetensors", shapes)).kind.name == "klein"


def test_the_kind_can_be_named_where_only_the_name_tells(tmp_path) -> None:
    file = write_sparse(tmp_path / "mine.safetensors", sparse.KLEIN_4B)
    assert recognise_file(file, "klein-base").kind.name == "klein-base"
    with pytest.raises(InvalidUsageError, match=r"does not match mine.safetensors, which holds klein"):
        recognise_file(file, "dev")


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        (sparse.vae(32), "it looks like a VAE: name it as vae"),
        (sparse.encoder(2560), "it looks like a text encoder"),
        ({"a.lora_A.weight": ("BF16", (4, 4))}, "it looks like a LoRA"),
        ({"a": ("BF16", (4, 4))}, "give a FLUX.1, FLUX.2 or FLUX.3 transformer"),
        (sparse.flux1(128), "as Canny and Depth models do"),
    ],
)
def test_another_file_is_refused_by_what_it_is(tmp_path, shapes: sparse.Shapes, why: str) -> None:
    with pytest.raises(InvalidUsageError, match=why):
        recognise_file(write_sparse(tmp_path / "one.safetensors", shapes))


def _with_scales(dtype: str, scale: str, shape: tuple[int, ...], *, first: int = 0) -> sparse.Shapes:
    """Return a klein with matrices of this format from the `first` on, each with a scale of this shape beside it."""
    found = dict(sparse.flux2(1, 1, 3072, 7680))
    matrices = [name for name, (_, size) in found.items() if len(size) > 1 and "blocks" in name][first:]
    for name in matrices:
        rows, columns = found[name][1]
        found[name] = (dtype, (rows, columns // 2 if dtype == "U8" else columns))
        found[f"{name}_scale"] = (scale, shape or ())
        if dtype == "U8":
            found[f"{name}_scale_2"] = ("F32", ())
        found[f"{name.removesuffix('weight')}comfy_quant"] = ("U8", (40,))
    return found


def _packed(**beside: tuple[str, tuple[int, ...]]) -> sparse.Shapes:
    """Return a klein with one matrix in these bytes, and others in bfloat16."""
    found = {name: shape for name, shape in sparse.KLEIN_4B.items() if name != "single_blocks.0.linear1.weight"}
    return {**found, **{f"single_blocks.0.linear1.{name}": shape for name, shape in beside.items()}}


NF4 = _packed(**{"weight": ("U8", (42467328, 1)), "weight.absmax": ("F32", (1327104,))})
NESTED_NF4 = _packed(**{"weight": ("U8", (42467328, 1)), "weight.quant_state.bitsandbytes__nf4": ("U8", (80,))})
SVDQUANT = _packed(qweight=("I8", (27648, 1536)), wscales=("BF16", (48, 27648)))
MXFP4 = _packed(weight=("U8", (27648, 1536)), weight_scale=("U8", (27648, 96)))
INT8_WITHOUT_SCALES = _packed(weight=("I8", (27648, 3072)))
MARKED_INT8 = _packed(weight=("I8", (27648, 3072)), comfy_quant=("U8", (40,)))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (_with_scales("I8", "F32", ()), "is in ComfyUI's int8, whose values may be rotated"),
        (MARKED_INT8, "is in ComfyUI's int8"),
        (_with_scales("U8", "F8_E4M3", (3072, 192)), r"is in NVFP4.*Blackwell.*GGUF file of Q4_K is as small"),
        (_with_scales("U8", "F8_E4M3", (3072, 192), first=6), "is in NVFP4"),
        (NF4, "is in bitsandbytes' four bits a value .*GGUF file of Q4_K is as small"),
        (NESTED_NF4, "is in bitsandbytes' four bits a value"),
        (SVDQUANT, r"packs its values in bytes, such as those of single_blocks\.0\.linear1\.qweight, in a form that"),
        (MXFP4, "packs its values in bytes"),
        (INT8_WITHOUT_SCALES, "packs its values in bytes"),
        (_with_scales("F8_E4M3", "F32", (24, 24)), "fp8 with a scale for each block of values"),
        (_with_scales("F8_E4M3", "U8", (3072, 96)), "fp8 with a scale for each block of values"),
    ],
    ids=[
        "int8",
        "marked int8",
        "nvfp4",
        "partly nvfp4",
        "nf4",
        "nested nf4",
        "svdquant",
        "mxfp4",
        "int8 without scales",
        "fp8 in blocks",
        "mxfp8",
    ],
)
def test_a_form_that_cannot_be_read_is_named_with_what_to_take(tmp_path, shapes: sparse.Shapes, said: str) -> None:
    with pytest.raises(InvalidUsageError, match=said) as refused:
        recognise_file(write_sparse(tmp_path / "one.safetensors", shapes))
    hint = refused.value.faults[0].hint
    assert hint.startswith("take the bfloat16 or float16 original, fp8 with one scale for each matrix or row, or a ")
    assert 'quantize = "int8" makes int8 from the first two' in hint


@pytest.mark.parametrize(
    "name", ["img_in.weight_scale_inv", "img_in.scale", "img_in.weight.scale", "img_in.weight_scale_3"]
)
def test_a_scale_beside_an_fp8_weight_that_is_not_read_is_refused_by_name(tmp_path, name: str) -> None:
    """The weight would load without its scale, and nothing would say so."""
    shapes = {**sparse.KLEIN_4B, "img_in.weight": ("F8_E4M3", (3072, 128)), name: ("F32", (24, 1))}
    with pytest.raises(InvalidUsageError, match=rf"holds {name}, a scale that .* cannot apply \(take the bfloat16"):
        recognise_file(write_sparse(tmp_path / "klein.safetensors", shapes))


def test_the_scale_of_a_norm_is_a_weight(tmp_path) -> None:
    """Some files have every tensor in fp8, and BFL's norms name their weight scale."""
    shapes = {name: ("F8_E4M3", shape) for name, (_, shape) in sparse.KLEIN_4B.items()}
    assert recognise_file(write_sparse(tmp_path / "klein.safetensors", shapes)).precision == "fp8"


def _cut(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 1)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_cut, "is cut off: it needs"),
        (lambda file: file.write_bytes(b"<html>not found</html>"), "is not a safetensors file"),
        (lambda file: file.write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00[]"), "is not a safetensors file"),
        (lambda file: file.write_bytes(b"\x0d\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{"x":1}}'), "is not a safetensors"),
        (lambda file: file.write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}"), "it holds no tensors"),
        (lambda file: file.unlink(), "does not exist"),
        (lambda file: (file.unlink(), file.mkdir()), "is a folder"),
    ],
)
def test_a_spoilt_file_is_said_to_be(tmp_path, spoil, why: str) -> None:
    file = write_sparse(tmp_path / "one.safetensors", sparse.flux3())
    spoil(file)
    with pytest.raises(InvalidUsageError, match=why):
        recognise_file(file)


def test_a_pickle_is_not_opened(tmp_path) -> None:
    (tmp_path / "one.ckpt").write_bytes(b"")
    with pytest.raises(InvalidUsageError, match="pickles are not opened"):
        recognise_file(tmp_path / "one.ckpt")
