"""Pipelines from a transformer in one file and the parts beside it; no network is used."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from fluxwerk.engines.local import modular
from fluxwerk.engines.local.checkpoint import Checkpoint, recognise_file, stripped_name
from fluxwerk.engines.local.foreign import Pipeline, Tensor, diffusers, torch, transformers
from fluxwerk.engines.local.precision import SCALE_OF, SCALES
from fluxwerk.engines.local.row import Row

# As BFL's folders configure it. schnell was distilled without the shift by size, and FLUX.3 has a fixed one.
SHIFTED = {
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
UNSHIFTED = {"shift": 1.0, "use_dynamic_shifting": False}
ENCODER_CLASSES = {
    "Flux2Pipeline": ("Mistral3ForConditionalGeneration",),
    "Flux3ModularPipeline": ("Qwen3VLForConditionalGeneration",),
    "Flux3DistilledModularPipeline": ("Qwen3VLForConditionalGeneration",),
    "FluxPipeline": ("CLIPTextModel", "T5EncoderModel"),
    "FluxKontextPipeline": ("CLIPTextModel", "T5EncoderModel"),
    "FluxFillPipeline": ("CLIPTextModel", "T5EncoderModel"),
}
# Only FLUX.1 has two, and a VAE of its own.
FLUX1_ENCODERS = 2
# CLIP's heads are 64 wide.
NARROW_HEAD = 64
# Files have this before the names of CLIP, and so had transformers before its version 5.
CLIP_PREFIX = "text_model."
# Whole files of CLIP have this number, by which images are compared with texts; no text is encoded with it.
CLIP_SCALE = "logit_scale"


def assemble(row: Row, dtype: Any) -> Pipeline:
    """Return the pipeline of a row whose path is one file."""
    places = {column: Path(path) for column, path in row.parts}
    checkpoint = recognise_file(Path(row.path), row.kind.name)
    names = ENCODER_CLASSES.get(row.kind.pipeline, ("Qwen3ForCausalLM",))
    columns = ("text_encoder", "text_encoder_2")[: len(names)]
    components = {
        "transformer": transformer_in(checkpoint, dtype),
        "vae": _vae(places["vae"], row.kind.pipeline, dtype),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(
            **(UNSHIFTED if row.kind.name == "flux1-schnell" else SHIFTED)
        ),
    }
    for column, name in zip(columns, names, strict=True):
        components[column] = _encoder(places[column], name, dtype)
        tokenizer = column.replace("text_encoder", "tokenizer")
        components[tokenizer] = transformers.AutoTokenizer.from_pretrained(
            str(places[tokenizer]), local_files_only=True, trust_remote_code=False
        )
    if row.kind.pipeline in modular.BLOCKS:
        del components["scheduler"]  # the blocks bring the one with FLUX.3's fixed shift
        components["tokenizer"] = modular.TextProcessor(components["tokenizer"])
        return modular.connect(row.kind.pipeline, components)
    if row.kind.pipeline == "Flux2KleinPipeline":
        components["is_distilled"] = row.kind.fixed
    return getattr(diffusers, row.kind.pipeline)(**components)


def transformer_in(checkpoint: Checkpoint, dtype: Any) -> Any:
    """Return the transformer of a file; diffusers has the converters for BFL's names."""
    tensors, form = _tensors(checkpoint, dtype)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(dict(checkpoint.config)), encoding="utf-8")
        try:
            found = getattr(diffusers, checkpoint.transformer).from_single_file(
                tensors, config=folder, dtype=dtype, quantization_config=form, local_files_only=True
            )
        except NotImplementedError:
            # A tensor that no file holds stays without memory, and nothing can be computed with it.
            raise ValueError("it lacks tensors of its blocks; download it again") from None
    if any(parameter.is_meta for parameter in found.parameters()):
        raise ValueError("it lacks tensors of its blocks; download it again")
    return found


def _tensors(checkpoint: Checkpoint, dtype: Any) -> tuple[dict[str, Tensor], Any]:
    """Return the transformer's tensors, and the configuration of the form in which they stay quantised."""
    if checkpoint.path.suffix == ".gguf":
        loading = import_module("diffusers.models.model_loading_utils")
        tensors = loading.load_gguf_checkpoint(str(checkpoint.path))
        return _without_prefix(checkpoint, tensors), diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    tensors = _without_prefix(checkpoint, import_module("safetensors.torch").load_file(str(checkpoint.path)))
    return _scaled(tensors, dtype), None


def _without_prefix(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if checkpoint.layout != "comfyui":
        return tensors
    return {stripped_name(name): tensor for name, tensor in tensors.items() if stripped_name(name) != name}


def _scaled(tensors: dict[str, Tensor], dtype: Any) -> dict[str, Tensor]:
    """Multiply fp8 weights by what stands beside each: one scale, or one for each row."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALES):
            continue
        stem = name.removesuffix(".weight")
        scale = next((tensors[stem + end] for end in SCALE_OF if stem + end in tensors), None)
        found[name] = tensor if scale is None else (tensor.float() * _along_rows(scale.float(), tensor)).to(dtype)
    return found


def _along_rows(scale: Tensor, weight: Tensor) -> Tensor:
    return scale if scale.numel() == 1 else scale.reshape(-1, *[1] * (weight.ndim - 1))


def _vae(place: Path, pipeline: str, dtype: Any) -> Any:
    kind = (
        diffusers.AutoencoderKL
        if len(ENCODER_CLASSES.get(pipeline, ())) == FLUX1_ENCODERS
        else diffusers.AutoencoderKLFlux2
    )
    if place.is_dir():
        return kind.from_pretrained(str(place), dtype=dtype, use_safetensors=True, local_files_only=True)
    tensors = import_module("safetensors.torch").load_file(str(place))
    single = import_module("diffusers.loaders.single_file_utils")
    config = _vae_config(kind, tensors)
    with torch.device("meta"):
        vae = kind(**config)
    converted = single.convert_ldm_vae_checkpoint(tensors, vae.config)
    for name in ("quant_conv", "post_quant_conv"):
        side = "encoder" if name == "quant_conv" else "decoder"
        converted |= {
            key.removeprefix(f"{side}."): value for key, value in tensors.items() if key.startswith(f"{side}.{name}.")
        }
    converted |= {key: value for key, value in tensors.items() if key.startswith("bn.")}
    vae.load_state_dict(converted, strict=True, assign=True)
    return vae.to(dtype).eval()


def _vae_config(kind: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the configuration of a VAE in BFL's layout."""
    levels = [key for key in (f"encoder.down.{level}.block.0.conv1.weight" for level in range(8)) if key in tensors]
    channels = [int(tensors[key].shape[0]) for key in levels]
    blocks = sum(f"encoder.down.0.block.{number}.conv1.weight" in tensors for number in range(8))
    config: dict[str, Any] = {
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "latent_channels": int(tensors["decoder.conv_in.weight"].shape[1]),
        "norm_num_groups": min(32, channels[0] // 2),
        "sample_size": 1024,
    }
    if kind is diffusers.AutoencoderKL:
        count = len(channels)
        config |= {
            "down_block_types": ("DownEncoderBlock2D",) * count,
            "up_block_types": ("UpDecoderBlock2D",) * count,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "shift_factor": 0.1159,
            "scaling_factor": 0.3611,
        }
    return config


def _encoder(place: Path, name: str, dtype: Any) -> Any:
    kind = getattr(transformers, name)
    if place.is_dir():
        return kind.from_pretrained(
            str(place), dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    tensors = _scaled(import_module("safetensors.torch").load_file(str(place)), dtype)
    if name not in CONFIGURES:
        raise ValueError(f"{place.name} is one file, and {name} can be read from a folder only")
    # Without memory for the weights, which are assigned next, but with that of the positions, which no file holds.
    with import_module("accelerate").init_empty_weights(include_buffers=False):
        encoder = kind(CONFIGURES[name](tensors))
    if name == "CLIPTextModel" and not any(key.startswith(CLIP_PREFIX) for key in encoder.state_dict()):
        tensors = {key.removeprefix(CLIP_PREFIX): tensor for key, tensor in tensors.items()}
    missing, unexpected = encoder.load_state_dict(tensors, strict=False, assign=True)
    # Other tensors may be too many, such as those of CLIP for images, but weights without their scales are wrong.
    if scales := [key for key in unexpected if "scale" in key and key != CLIP_SCALE]:
        raise ValueError(f"{place.name} holds {scales[0]}, a scale that cannot be applied; take its bfloat16 original")
    encoder.tie_weights()
    empty = [key for key in missing if encoder.get_parameter(key).is_meta]
    if empty:
        raise ValueError(f"{place.name} lacks {len(empty)} tensors, such as {empty[0]}")
    return encoder.to(dtype).eval()


def _layers(tensors: dict[str, Tensor], before: str) -> int:
    return 1 + max(int(key[len(before) :].split(".")[0]) for key in tensors if key.startswith(before))


def _qwen3(tensors: dict[str, Tensor]) -> Any:
    layer = "model.layers.0.self_attn."
    head = int(tensors[f"{layer}q_norm.weight"].shape[0])
    vocabulary, hidden = tensors["model.embed_tokens.weight"].shape
    return transformers.Qwen3Config(
        vocab_size=int(vocabulary),
        hidden_size=int(hidden),
        intermediate_size=int(tensors["model.layers.0.mlp.gate_proj.weight"].shape[0]),
        num_hidden_layers=_layers(tensors, "model.layers."),
        num_attention_heads=int(tensors[f"{layer}q_proj.weight"].shape[0]) // head,
        num_key_value_heads=int(tensors[f"{layer}k_proj.weight"].shape[0]) // head,
        head_dim=head,
        rope_theta=1_000_000.0,
        max_position_embeddings=40960,
        tie_word_embeddings="lm_head.weight" not in tensors,
    )


def _t5(tensors: dict[str, Tensor]) -> Any:
    layer = "encoder.block.0.layer."
    vocabulary, width = tensors["shared.weight"].shape
    return transformers.T5Config(
        vocab_size=int(vocabulary),
        d_model=int(width),
        d_kv=int(tensors[f"{layer}0.SelfAttention.q.weight"].shape[0])
        // int(tensors[f"{layer}0.SelfAttention.relative_attention_bias.weight"].shape[1]),
        d_ff=int(tensors[f"{layer}1.DenseReluDense.wi_0.weight"].shape[0]),
        num_layers=_layers(tensors, "encoder.block."),
        num_heads=int(tensors[f"{layer}0.SelfAttention.relative_attention_bias.weight"].shape[1]),
        feed_forward_proj="gated-gelu",
    )


def _clip(tensors: dict[str, Tensor]) -> Any:
    vocabulary, width = tensors["text_model.embeddings.token_embedding.weight"].shape
    return transformers.CLIPTextConfig(
        vocab_size=int(vocabulary),
        hidden_size=int(width),
        intermediate_size=int(tensors["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0]),
        num_hidden_layers=_layers(tensors, "text_model.encoder.layers."),
        num_attention_heads=int(width) // NARROW_HEAD,
        max_position_embeddings=int(tensors["text_model.embeddings.position_embedding.weight"].shape[0]),
        projection_dim=int(width),
        # The last two tokens; the text is pooled where it ends.
        bos_token_id=int(vocabulary) - 2,
        eos_token_id=int(vocabulary) - 1,
    )


CONFIGURES: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "Qwen3ForCausalLM": _qwen3,
    "T5EncoderModel": _t5,
    "CLIPTextModel": _clip,
}
