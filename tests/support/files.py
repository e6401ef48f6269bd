"""Tiny checkpoints as people find them: one file in BFL's or ComfyUI's layout, in fp8 or GGUF."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file, save_file

from fluxwerk.engines.local.checkpoint import COMFY_PREFIX

_WHOLE = {
    "x_embedder.": "img_in.",
    "context_embedder.": "txt_in.",
    "time_guidance_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
    "time_guidance_embed.timestep_embedder.linear_2.": "time_in.out_layer.",
    "time_guidance_embed.guidance_embedder.linear_1.": "guidance_in.in_layer.",
    "time_guidance_embed.guidance_embedder.linear_2.": "guidance_in.out_layer.",
    "stream_modulation_img.linear.": "stream_modulation_img.lin.",
    "stream_modulation_txt.linear.": "stream_modulation_txt.lin.",
    "stream_modulation.linear.": "stream_modulation.lin.",
    "proj_out.": "final_layer.linear.",
    "norm_out.linear.": "final_layer.adaLN_modulation.1.",
    "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
    "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
    "attn.to_out.0.": "img_attn.proj.",
    "attn.to_add_out.": "txt_attn.proj.",
    "ff.linear_in.": "img_mlp.0.",
    "ff.linear_out.": "img_mlp.2.",
    "ff_context.linear_in.": "txt_mlp.0.",
    "ff_context.linear_out.": "txt_mlp.2.",
}
_SINGLE = {
    "attn.to_qkv_mlp_proj.": "linear1.",
    "attn.to_out.": "linear2.",
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
}
_FLUX1 = {
    "time_text_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
    "time_text_embed.timestep_embedder.linear_2.": "time_in.out_layer.",
    "time_text_embed.text_embedder.linear_1.": "vector_in.in_layer.",
    "time_text_embed.text_embedder.linear_2.": "vector_in.out_layer.",
    "time_text_embed.guidance_embedder.linear_1.": "guidance_in.in_layer.",
    "time_text_embed.guidance_embedder.linear_2.": "guidance_in.out_layer.",
    "norm1.linear.": "img_mod.lin.",
    "norm1_context.linear.": "txt_mod.lin.",
    "ff.net.0.proj.": "img_mlp.0.",
    "ff.net.2.": "img_mlp.2.",
    "ff_context.net.0.proj.": "txt_mlp.0.",
    "ff_context.net.2.": "txt_mlp.2.",
}
_FLUX1_SINGLE = {
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
    ".norm.linear.": ".modulation.lin.",
    "proj_out.": "linear2.",
}
_FLUX3 = {
    "timestep_embedder.linear_1.": "time_in.in_layer.",
    "timestep_embedder.linear_2.": "time_in.out_layer.",
    "target_time_in": "ref_time_in",
    ".linear.weight": ".lin.weight",
    "proj_out.": "final_layer.image.linear.",
    "norm_out.lin.": "final_layer.image.adaLN_modulation.1.",
    "x_embedders.": "emb_in.",
    "context_embedder.": "txt_in.",
    "attn.to_q.": "q_proj.",
    "attn.to_k.": "k_proj.",
    "attn.to_v.": "v_proj.",
    "attn.to_out.0.": "attn_out.",
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
    "ff.linear_in.": "mlp_in.",
    "ff.linear_out.": "mlp_out.",
}


def tensors_of(folder: Path) -> dict[str, Any]:
    """Return the transformer of a checkpoint in BFL's layout."""
    held = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    return _bfl3(held) if any(name.startswith("mode_blocks") for name in held) else _bfl2(held)


def write(tensors: dict[str, Any], file: Path, *, comfy: bool = False) -> Path:
    """Write a .safetensors file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    named = {(COMFY_PREFIX if comfy else "") + name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, file)
    return file


def scaled(tensors: dict[str, Any], spelling: str, *, rows: bool = False) -> dict[str, Any]:
    """Return the weights in fp8, each with one scale or one for each row beside it, and ComfyUI's mark."""
    found: dict[str, Any] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            found[name] = tensor
            continue
        scale = (tensor.float().abs().amax(dim=1) if rows else tensor.float().abs().max()) / 448
        found[name] = (tensor / (scale[:, None] if rows else scale)).to(torch.float8_e4m3fn)
        found[f"{name.removesuffix('.weight')}.{spelling}"] = scale
        found[f"{name.removesuffix('.weight')}.scale_input"] = torch.ones(())
    return found


def write_gguf(tensors: dict[str, Any], file: Path, form: str, only: str = "") -> Path:
    """Write a GGUF file whose matrices are in this form, or those whose names contain `only`.

    A matrix of bytes is in its form already.
    """
    writer = gguf.GGUFWriter(str(file), "flux")
    kind = gguf.GGMLQuantizationType[form]
    for name, tensor in tensors.items():
        if tensor.dtype == torch.uint8:
            writer.add_tensor(name, tensor.numpy(), raw_dtype=kind)
        elif tensor.ndim == 1 or only not in name:
            writer.add_tensor(name, tensor.float().numpy())
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def k_quants(shape: tuple[int, int]) -> Any:
    """Return a random matrix in Q4_K, which the package gguf unpacks but does not pack.

    A block of 256 values has a scale and a least value, six bits for each of its eight parts, and 128 bytes.
    """
    blocks = torch.randint(0, 256, (shape[0], shape[1] // 256, 144), dtype=torch.uint8)
    ends = torch.tensor([1e-4, 7.5e-4], dtype=torch.float16).view(torch.uint8)
    blocks[:, :, :4] = ends
    return blocks.flatten(1)


def unpacked(matrix: Any, form: str) -> Any:
    """Return the values of a matrix of bytes."""
    return torch.from_numpy(gguf.quants.dequantize(matrix.numpy(), gguf.GGMLQuantizationType[form]))


def vae_of(folder: Path) -> dict[str, Any]:
    """Return the VAE of a checkpoint in BFL's layout."""
    held = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    levels = 1 + max(int(name.split(".")[2]) for name in held if name.startswith("decoder.up_blocks."))
    found: dict[str, Any] = {}
    for name, tensor in held.items():
        new = re.sub(r"^quant_conv", "encoder.quant_conv", name)
        new = re.sub(r"^post_quant_conv", "decoder.post_quant_conv", new)
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", r"down.\1.downsample.conv", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda at: f"up.{levels - 1 - int(at[1])}.block.{at[2]}", new)
        new = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0\.conv", lambda at: f"up.{levels - 1 - int(at[1])}.upsample.conv", new
        )
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda at: f"mid.block_{int(at[1]) + 1}", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        new = new.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm")
        old = new
        new = re.sub(r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1", new)
        new = new.replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
        found[new] = tensor[:, :, None, None] if new != old and tensor.ndim == 2 else tensor
    return found


def encoders_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return CLIP and T5 of a FLUX.1 checkpoint with the names that their files have."""
    clip = load_file(folder / "text_encoder" / "model.safetensors")
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in clip.items()}
    return named, load_file(folder / "text_encoder_2" / "model.safetensors")


def _bfl2(held: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, tensor in held.items():
        single = name.startswith("single_transformer_blocks.")
        new = _renamed(name, _SINGLE if single else _WHOLE)
        new = new.replace("single_transformer_blocks.", "single_blocks.").replace(
            "transformer_blocks.", "double_blocks."
        )
        found[new] = _swapped(tensor) if "adaLN" in new else tensor
    for block in {name.split(".attn.")[0] for name in found if ".attn.to_q" in name}:
        for side, parts in (("img", ("to_q", "to_k", "to_v")), ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"))):
            found[f"{block}.{side}_attn.qkv.weight"] = torch.cat(
                [found.pop(f"{block}.attn.{part}.weight") for part in parts]
            )
    return found


def bfl1(held: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors of a FLUX.1 transformer in BFL's layout, where the projections of a block are stacked."""
    found: dict[str, Any] = {}
    for name, tensor in held.items():
        single = name.startswith("single_transformer_blocks.")
        new = _renamed(name, _FLUX1_SINGLE if single else {**_FLUX1, **_WHOLE})
        new = new.replace("single_transformer_blocks.", "single_blocks.").replace(
            "transformer_blocks.", "double_blocks."
        )
        found[new] = _swapped(tensor) if "adaLN" in new else tensor
    stacks = {
        "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    }
    for block in {".".join(name.split(".")[:2]) for name in found if "_blocks." in name}:
        for stack, parts in stacks.items():
            if (stack == "linear1") == block.startswith("single"):
                for kind in ("weight", "bias"):
                    found[f"{block}.{stack}.{kind}"] = torch.cat([found.pop(f"{block}.{p}.{kind}") for p in parts])
    return found


def _bfl3(held: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, tensor in held.items():
        new = _renamed(name, _FLUX3)
        new = new.replace("single_transformer_blocks.", "single_blocks.")
        new = re.sub(r"^mode_blocks\.", "content_mode_blocks.", new)
        found[new] = _swapped(tensor) if "adaLN" in new else tensor
    return found


def _renamed(name: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def _swapped(tensor: Any) -> Any:
    one, other = tensor.chunk(2)
    return torch.cat([other, one])
