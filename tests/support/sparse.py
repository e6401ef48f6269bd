"""Files of weights with the true names and shapes and no content: sparse, so that gigabytes take no room."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

SIZES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1, "I8": 1}
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]


def write_sparse(file: Path, shapes: Shapes) -> Path:
    """Write a .safetensors file with these tensors, by name: their format and shape."""
    table, at = {}, 0
    for name, (dtype, shape) in shapes.items():
        size = prod(shape) * SIZES[dtype]
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + at)
    return file


def write_sparse_gguf(file: Path, shapes: Shapes, form: str) -> Path:
    """Write a .gguf file with these tensors, the matrices of the blocks in this form."""
    import gguf  # noqa: PLC0415  (tests that need no GGUF run without the package)
    import numpy as np  # noqa: PLC0415

    file.parent.mkdir(parents=True, exist_ok=True)
    writer, total = gguf.GGUFWriter(str(file), "flux"), 0
    for name, (_, shape) in shapes.items():
        packed = len(shape) > 1 and "_blocks." in name
        kind = gguf.GGMLQuantizationType[form if packed else "F32"]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        rows = (*shape[:-1], shape[-1] // values * size)
        writer.add_tensor_info(name, rows if packed else shape, np.dtype("u1" if packed else "f4"), prod(rows), kind)
        total += writer.ggml_pad(prod(rows), writer.data_alignment)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    held = writer.ggml_pad(file.stat().st_size, writer.data_alignment)
    with file.open("r+b") as stream:
        stream.truncate(held + total)
    return file


def flux2(double: int, single: int, width: int, text: int, *, guidance: bool = False, dtype: str = "BF16") -> Shapes:
    """Return the tensors of a FLUX.2 transformer in BFL's layout."""
    found: dict[str, tuple[int, ...]] = {
        "img_in.weight": (width, 128),
        "txt_in.weight": (width, text),
        "time_in.in_layer.weight": (width, 256),
        "time_in.out_layer.weight": (width, width),
        "double_stream_modulation_img.lin.weight": (6 * width, width),
        "double_stream_modulation_txt.lin.weight": (6 * width, width),
        "single_stream_modulation.lin.weight": (3 * width, width),
        "final_layer.linear.weight": (128, width),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width),
    }
    if guidance:
        found |= {"guidance_in.in_layer.weight": (width, 256), "guidance_in.out_layer.weight": (width, width)}
    for number in range(double):
        for side in ("img", "txt"):
            stem = f"double_blocks.{number}.{side}_"
            found |= {f"{stem}attn.qkv.weight": (3 * width, width), f"{stem}attn.proj.weight": (width, width)}
            found |= {f"{stem}mlp.0.weight": (6 * width, width), f"{stem}mlp.2.weight": (width, 3 * width)}
            found |= {f"{stem}attn.norm.{one}_norm.scale": (128,) for one in ("query", "key")}
    for number in range(single):
        stem = f"single_blocks.{number}."
        found |= {f"{stem}linear1.weight": (9 * width, width), f"{stem}linear2.weight": (width, 4 * width)}
        found |= {f"{stem}norm.{one}_norm.scale": (128,) for one in ("query", "key")}
    return {name: (dtype if len(shape) > 1 else "BF16", shape) for name, shape in found.items()}


KLEIN_4B = flux2(5, 20, 3072, 7680)
KLEIN_9B = flux2(8, 24, 4096, 12288)
DEV = flux2(8, 48, 6144, 15360, guidance=True)


def flux1(inputs: int = 64, *, guidance: bool = True) -> Shapes:
    """Return enough of a FLUX.1 transformer in BFL's layout to tell what it is."""
    found: dict[str, tuple[int, ...]] = {
        "img_in.weight": (3072, inputs),
        "txt_in.weight": (3072, 4096),
        "vector_in.in_layer.weight": (3072, 768),
        "final_layer.linear.weight": (64, 3072),
    }
    if guidance:
        found["guidance_in.in_layer.weight"] = (3072, 256)
    for number in range(19):
        found[f"double_blocks.{number}.img_attn.qkv.weight"] = (9216, 3072)
    for number in range(38):
        found[f"single_blocks.{number}.norm.query_norm.scale"] = (128,)
    return {name: ("BF16", shape) for name, shape in found.items()}


def flux3(*, distilled: bool = True) -> Shapes:
    """Return enough of a FLUX.3 transformer in BFL's layout to tell what it is."""
    found: dict[str, tuple[int, ...]] = {
        "emb_in.image.weight": (3072, 128),
        "emb_in.image_cond.weight": (3072, 128),
        "txt_in.weight": (3072, 20480),
    }
    if distilled:
        found["ref_time_in.in_layer.weight"] = (3072, 256)
    for number in range(5):
        found[f"txt_mode_blocks.{number}.q_proj.weight"] = (3072, 3072)
    for number in range(28):
        found[f"single_blocks.{number}.norm.query_norm.scale"] = (128,)
    return {name: ("BF16", shape) for name, shape in found.items()}


def encoder(width: int, layers: int = 36) -> Shapes:
    """Return the widest tensors of a Qwen3."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (151936, width)}
    for number in range(layers):
        stem = f"model.layers.{number}."
        found |= {f"{stem}mlp.{name}_proj.weight": (4 * width, width) for name in ("gate", "up", "down")}
    return {name: ("BF16", shape) for name, shape in found.items()}


def vae(channels: int) -> Shapes:
    """Return what tells a VAE."""
    return {"decoder.conv_in.weight": ("F32", (512, channels, 3, 3)), "encoder.conv_in.weight": ("F32", (128, 3, 3, 3))}


def comfy(place: Path, transformer: Shapes, width: int) -> Path:
    """Write the folders of ComfyUI with one transformer, its text encoder and its VAE, and a tokenizer beside them."""
    file = write_sparse(place / "diffusion_models" / "one.safetensors", transformer)
    write_sparse(place / "text_encoders" / "qwen_3.safetensors", encoder(width))
    write_sparse(place / "vae" / "flux2-vae.safetensors", vae(32))
    (place / "tokenizer").mkdir()
    (place / "tokenizer" / "tokenizer.json").write_text("{}")
    return file
