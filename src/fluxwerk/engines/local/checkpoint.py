"""Single files of weights: which transformer one holds, told from its tensors, and what is known of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxwerk.engines.local.header import Header, TensorEntry, read_header
from fluxwerk.engines.local.kind import KINDS, Kind
from fluxwerk.engines.local.precision import SCALES, precision, unreadable
from fluxwerk.errors import Fault, InvalidUsageError

# ComfyUI puts this before the names that BFL uses.
COMFY_PREFIX = "model.diffusion_model."
# FLUX.1 Fill reads the masked image and the mask as further channels of each token.
FILL_CHANNELS = 384
TEXT_TO_IMAGE_CHANNELS = 64


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A transformer in one file.

    `layout` says whose names its tensors have, `config` is the configuration of the class of diffusers, and `told`
    says whether the tensors tell the kind or the name of the file had to.
    """

    path: Path
    layout: str
    transformer: str
    config: Mapping[str, Any]
    kind: Kind
    told: bool
    precision: str
    parameters: int
    size: int

    @property
    def stays_quantised(self) -> bool:
        """Whether it keeps the form that it has on disk; other forms become the number format of the device."""
        return self.precision.startswith("GGUF")

    @property
    def width(self) -> int:
        """The width of the text that it reads."""
        return int(self.config["joint_attention_dim"])


def recognise_file(path: Path, pipeline: str | None = None) -> Checkpoint:
    """Return what a file holds; raises `InvalidUsageError` if it is no FLUX transformer or its form cannot be loaded.

    `pipeline` names the kind where the tensors cannot tell it.
    """
    whole = read_header(path)
    layout, header = transformer_of(whole)
    told = _class(header)
    if told is None:
        names = f"{', '.join(list(whole)[:3])}, …" if whole else "no tensors"
        raise InvalidUsageError(
            "", faults=[Fault("path", path.name, f"is no FLUX transformer; it holds {names}", _other(whole))]
        )
    name, configure = told
    if refusal := unreadable(header):
        raise InvalidUsageError("", faults=[Fault("path", path.name, *refusal)])
    config = {"_class_name": name, **(_config_beside(path, name) or configure(header))}
    kind, certain = _kind(name, config, path.stem.lower())
    if pipeline is not None:
        kind = _named(path, kind, pipeline)
    parameters = sum(entry.count for key, entry in header.items() if not key.endswith(SCALES))
    size = sum(entry.size for entry in header.values())
    return Checkpoint(path, layout, name, config, kind, certain, precision(header), parameters, size)


def stripped_name(name: str) -> str:
    """Return the name of a tensor without ComfyUI's prefix."""
    return name.removeprefix(COMFY_PREFIX)


def transformer_of(header: Header) -> tuple[str, Header]:
    """Return the layout, and the tensors of the transformer alone."""
    if any(name.startswith(COMFY_PREFIX) for name in header):
        return "comfyui", {
            stripped_name(name): entry for name, entry in header.items() if name.startswith(COMFY_PREFIX)
        }
    return ("bfl" if "img_in.weight" in header or "emb_in.image.weight" in header else "diffusers"), header


def _class(header: Header) -> tuple[str, Callable[[Header], dict[str, Any]]] | None:
    if "emb_in.image.weight" in header or "x_embedders.image.weight" in header:
        return "Flux3Transformer2DModel", _flux3
    if "single_stream_modulation.lin.weight" in header or "single_stream_modulation.linear.weight" in header:
        return "Flux2Transformer2DModel", _flux2
    if "vector_in.in_layer.weight" in header or "time_text_embed.text_embedder.linear_1.weight" in header:
        return "FluxTransformer2DModel", _flux1
    return None


def _flux1(header: Header) -> dict[str, Any]:
    pooled = _first(header, "vector_in.in_layer.weight", "time_text_embed.text_embedder.linear_1.weight").shape[1]
    return {
        **_common(header, ("img_in.weight", "x_embedder.weight"), ("double_blocks", "transformer_blocks")),
        "patch_size": 1,
        "out_channels": _first(header, "final_layer.linear.weight", "proj_out.weight").shape[0],
        "pooled_projection_dim": pooled,
        "guidance_embeds": _has(header, "guidance_in.", "time_text_embed.guidance_embedder."),
    }


def _flux2(header: Header) -> dict[str, Any]:
    common = _common(header, ("img_in.weight", "x_embedder.weight"), ("double_blocks", "transformer_blocks"))
    return {
        **common,
        "axes_dims_rope": [common["attention_head_dim"] // 4] * 4,
        "guidance_embeds": _has(header, "guidance_in.", "time_guidance_embed.guidance_embedder."),
    }


def _flux3(header: Header) -> dict[str, Any]:
    blocks = ("txt_mode_blocks", "txt_mode_blocks")
    common = _common(header, ("emb_in.image.weight", "x_embedders.image.weight"), blocks)
    return {
        **common,
        "axes_dims_rope": [common["attention_head_dim"] // 4] * 4,
        "cond_in_channels": _first(header, "emb_in.image_cond.weight", "x_embedders.image_cond.weight").shape[1],
        "flow_map": _has(header, "ref_time_in.", "target_timestep_embedder."),
    }


def _common(header: Header, inputs: tuple[str, str], blocks: tuple[str, str]) -> dict[str, Any]:
    """Return what every family has; names come in pairs, BFL's and that of diffusers."""
    width, channels = _first(header, *inputs).shape
    norms = ("single_blocks.0.norm.query_norm.scale", "single_transformer_blocks.0.attn.norm_q.weight")
    head = _first(header, *norms).shape[0]
    return {
        "in_channels": channels,
        "num_layers": _count(header, *blocks),
        "num_single_layers": _count(header, "single_blocks", "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": _first(header, "txt_in.weight", "context_embedder.weight").shape[1],
    }


def _first(header: Header, bfl: str, diffusers: str) -> TensorEntry:
    found = header.get(bfl) or header.get(diffusers)
    if found is None:
        raise InvalidUsageError("", faults=[Fault("path", bfl, "is missing in the file", "download the file again")])
    return found


def _has(header: Header, bfl: str, diffusers: str) -> bool:
    return any(name.startswith((bfl, diffusers)) for name in header)


def _count(header: Header, bfl: str, diffusers: str) -> int:
    """Return the number of blocks."""
    numbers = [int(name.split(".", 2)[1]) for name in header if name.startswith((f"{bfl}.", f"{diffusers}."))]
    return max(numbers, default=-1) + 1


def _config_beside(path: Path, name: str) -> dict[str, Any] | None:
    """Return the configuration that diffusers saved beside the file, if it is of this class."""
    try:
        found: Any = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("_class_name") == name else None  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]


def _kind(name: str, config: Mapping[str, Any], stem: str) -> tuple[Kind, bool]:
    """Return the kind, and whether the tensors alone tell it."""
    if name == "Flux3Transformer2DModel":
        return KINDS["flux3-klein" if config["flow_map"] else "flux3-klein-base"], True
    if name == "Flux2Transformer2DModel":
        if config["guidance_embeds"]:
            return KINDS["dev"], True
        return KINDS["klein-base" if "base" in stem else "klein-kv" if "kv" in stem else "klein"], False
    if config["in_channels"] == FILL_CHANNELS:
        return KINDS["fill"], True
    if config["in_channels"] != TEXT_TO_IMAGE_CHANNELS:
        why = f"reads {config['in_channels']} channels, as Canny and Depth models do, which cannot be served"
        raise InvalidUsageError("", faults=[Fault("path", stem, why, f"give one of {', '.join(KINDS)}")])
    if not config["guidance_embeds"]:
        return KINDS["flux1-schnell"], True
    return KINDS["kontext" if "kontext" in stem else "flux1-dev"], False


# Kinds whose tensors have the same names and shapes.
ALIKE = (("klein", "klein-base", "klein-kv"), ("flux1-dev", "kontext"))


def _named(path: Path, found: Kind, pipeline: str) -> Kind:
    alike = next((group for group in ALIKE if found.name in group), (found.name,))
    if pipeline not in alike:
        why = f"does not match {path.name}, which holds {found.name}"
        raise InvalidUsageError("", faults=[Fault("pipeline", pipeline, why, f"one of {', '.join(alike)}")])
    return KINDS[pipeline]


def _other(header: Header) -> str:
    """Say what else a file is, as a hint."""
    if any(name.startswith(("decoder.", "vae.", "first_stage_model.")) for name in header):
        return "it looks like a VAE: name it as vae"
    if any("embed_tokens" in name or "SelfAttention" in name or "text_model" in name for name in header):
        return "it looks like a text encoder: name it as text_encoder"
    if any("lora" in name for name in header):
        return "it looks like a LoRA: put it into the folder of --loras"
    return "give a FLUX.1, FLUX.2 or FLUX.3 transformer"
