"""Tiny checkpoints with random weights and the true geometry: built in the test run, never kept.

Each is under 4 MB and builds in under a second.  Thin channels and few layers, but real sizes where code depends on
them: a VAE factor of 8, 2 x 2 packing, 32 or 16 latent channels, text layers 9, 18 and 27 of 28, 10, 20 and 30 of 31.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

transformers.utils.logging.disable_progress_bar()
diffusers.utils.logging.disable_progress_bar()

HIDDEN = 32
CLIP_HIDDEN = 64
CHAT = (
    "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
SEEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SEEING_CHAT = (
    "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{%- for c in m.content -%}{%- if c.type == 'image' -%}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ c.text }}{%- endif -%}{%- endfor -%}<|im_end|>\n"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n"
    "<think>\n{%- if enable_thinking is false -%}\n</think>\n\n{%- endif -%}{%- endif -%}"
)
# As the released image processors of Qwen3.5 are configured.
SEEING = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "processor_class": "Qwen3VLProcessor",
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
INSTRUCT = (
    "<s>{%- for m in messages -%}[INST]{%- for c in m.content -%}"
    "{%- if c.type == 'text' -%}{{ c.text }}{%- endif -%}{%- endfor -%}[/INST]{%- endfor -%}"
)


def build(name: str, folder: Path) -> Path:
    """Build one of `BUILDERS` into a folder as diffusers saves it, and return the folder."""
    torch.manual_seed(0)
    BUILDERS[name]().save_pretrained(folder, safe_serialization=True)
    return folder


def lora(pipe_folder: Path, folder: Path, seed: int = 3) -> Path:
    """Save a LoRA for a tiny klein and return its file."""
    from peft import LoraConfig, get_peft_model_state_dict  # noqa: PLC0415  (one test needs it)

    torch.manual_seed(seed)
    pipe = diffusers.Flux2KleinPipeline.from_pretrained(str(pipe_folder), local_files_only=True)
    targets = ["to_q", "to_k", "to_v", "to_qkv_mlp_proj"]
    pipe.transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=targets))
    layers = get_peft_model_state_dict(pipe.transformer)
    pipe.save_lora_weights(str(folder), transformer_lora_layers=layers, safe_serialization=True)
    return folder / "pytorch_lora_weights.safetensors"


def upsampler(folder: Path) -> Path:
    """Save a tiny Qwen3.5, which reads images, in the layout of FLUX.3's prompt upsampler, and return its folder."""
    torch.manual_seed(5)  # with these weights an answer ends after a few tokens
    tokenizer = qwen()
    tokenizer.add_special_tokens({"additional_special_tokens": list(SEEN)}, replace_extra_special_tokens=False)
    tokenizer.chat_template = SEEING_CHAT
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(SEEN))
    text = {
        "vocab_size": len(tokenizer),
        "initializer_range": 0.3,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [1, 1, 0],
            "mrope_interleaved": True,
            "partial_rotary_factor": 0.25,
        },
        # Some letters end an answer too, so that it is short.
        "eos_token_id": [tokenizer.eos_token_id, *range(240, 248)],
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2}
    config = transformers.Qwen3_5Config(
        text_config=text,
        vision_config={**vision, "out_hidden_size": HIDDEN, "num_position_embeddings": 64},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    transformers.Qwen3_5ForConditionalGeneration(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SEEING))
    return folder


def _byte_level(specials: dict[str, str], *, last: bool = False, **more: Any) -> Any:
    """Return a tokenizer with one token for each byte, and a few special ones before or after them."""
    names, letters = list(dict.fromkeys(specials.values())), sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: at for at, token in enumerate([*letters, *names] if last else [*names, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials, **more)


def qwen() -> Any:
    """Return a tokenizer with one token for each byte, and a short chat template."""
    tokenizer = _byte_level({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": "<|im_start|>"})
    tokenizer.chat_template = CHAT
    return tokenizer


def _t5() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def _vae2() -> Any:
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=32, norm_num_groups=4, sample_size=256
    )
    with torch.no_grad():  # statistics that are not those of a fresh norm, so that forgetting them shows
        vae.bn.running_mean.copy_(torch.linspace(-0.5, 0.5, 128))
        vae.bn.running_var.copy_(torch.linspace(0.5, 2.0, 128))
    return vae.eval()


def _transformer2(*, guidance: bool) -> Any:
    return diffusers.Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=3 * HIDDEN,
        axes_dims_rope=(8, 8, 8, 8),
        guidance_embeds=guidance,
    ).eval()


def scheduler(*, dynamic: bool = True) -> Any:
    """Return the scheduler of FLUX.2, or of schnell."""
    return diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0 if dynamic else 1.0,
        use_dynamic_shifting=dynamic,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def _klein(kind: str = "Flux2KleinPipeline", *, distilled: bool = True) -> Any:
    tokenizer = qwen()
    config = transformers.Qwen3Config(
        vocab_size=512,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
        rope_theta=1_000_000.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    known = {"is_distilled": distilled} if kind == "Flux2KleinPipeline" else {}
    return getattr(diffusers, kind)(
        scheduler=scheduler(),
        vae=_vae2(),
        text_encoder=transformers.Qwen3ForCausalLM(config).eval(),
        tokenizer=tokenizer,
        transformer=_transformer2(guidance=False),
        **known,
    )


def _dev() -> Any:
    specials = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    # The real slot holds a processor that insists on torchvision; the pipeline asks it for this template only.
    tokenizer = _byte_level(specials, additional_special_tokens=["[INST]", "[/INST]", "[IMG]"])
    tokenizer.chat_template = INSTRUCT
    text = {
        "model_type": "mistral",
        "vocab_size": 512,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "num_hidden_layers": 31,
        "max_position_embeddings": 2048,
        "sliding_window": None,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 56,
        "patch_size": 14,
    }
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, image_token_index=4)
    return diffusers.Flux2Pipeline(
        scheduler=scheduler(),
        vae=_vae2(),
        text_encoder=transformers.Mistral3ForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        transformer=_transformer2(guidance=True),
    )


def _flux1(kind: str, *, inputs: int = 64, outputs: int | None = None, guidance: bool = True) -> Any:
    clip_names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    clip = _byte_level(clip_names, last=True, unk_token="<|endoftext|>", model_max_length=77)
    t5 = _t5()
    clip_config = transformers.CLIPTextConfig(
        vocab_size=len(clip),
        hidden_size=CLIP_HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=77,
        projection_dim=CLIP_HIDDEN,
        bos_token_id=clip.bos_token_id,
        eos_token_id=clip.eos_token_id,
        pad_token_id=clip.pad_token_id,
    )
    t5_config = transformers.T5Config(
        vocab_size=len(t5), d_model=HIDDEN, d_kv=16, d_ff=64, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1159,
        scaling_factor=0.3611,
    )
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=inputs,
        out_channels=outputs,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=HIDDEN,
        pooled_projection_dim=CLIP_HIDDEN,
        guidance_embeds=guidance,
        axes_dims_rope=(8, 12, 12),
    )
    return getattr(diffusers, kind)(
        scheduler=scheduler(dynamic=guidance),
        vae=vae.eval(),
        text_encoder=transformers.CLIPTextModel(clip_config).eval(),
        tokenizer=clip,
        text_encoder_2=transformers.T5EncoderModel(t5_config).eval(),
        tokenizer_2=t5,
        transformer=transformer.eval(),
    )


class _Modular:
    """A pipeline of blocks, saved as a folder with its own index and a subfolder for each part."""

    def __init__(self, pipeline: str, parts: dict[str, Any]) -> None:
        self.pipeline, self.parts = pipeline, parts

    def save_pretrained(self, folder: Path, **given: Any) -> None:
        index: dict[str, Any] = {"_class_name": self.pipeline}
        for name, part in self.parts.items():
            part.save_pretrained(folder / name)
            index[name] = [type(part).__module__.split(".")[0], type(part).__name__, {"subfolder": name}]
        (folder / "modular_model_index.json").write_text(json.dumps(index))


def _flux3(pipeline: str, *, distilled: bool) -> Any:
    text = {
        "vocab_size": 512,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 33,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2]},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "deepstack_visual_indexes": [0],
    }
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision)
    transformer = diffusers.Flux3Transformer2DModel(
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=8 * HIDDEN,
        axes_dims_rope=(8, 8, 8, 8),
        flow_map=distilled,
    )
    parts = {
        "transformer": transformer.eval(),
        "vae": _vae2(),
        "text_encoder": transformers.Qwen3VLForConditionalGeneration(config).eval(),
        "tokenizer": qwen(),
    }
    return _Modular(pipeline, parts)


BUILDERS: dict[str, Callable[[], Any]] = {
    "klein": _klein,
    "klein-base": lambda: _klein(distilled=False),
    "klein-kv": lambda: _klein("Flux2KleinKVPipeline"),
    "dev": _dev,
    "flux3-klein": lambda: _flux3("Flux3DistilledModularPipeline", distilled=True),
    "flux3-klein-base": lambda: _flux3("Flux3ModularPipeline", distilled=False),
    "flux1-dev": lambda: _flux1("FluxPipeline"),
    "flux1-schnell": lambda: _flux1("FluxPipeline", guidance=False),
    "kontext": lambda: _flux1("FluxKontextPipeline"),
    # 64 noisy channels, 64 of the masked picture, 256 of the mask, as 8 x 8 pixels folded and 2 x 2 packed.
    "fill": lambda: _flux1("FluxFillPipeline", inputs=384, outputs=64),
}
