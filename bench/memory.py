"""What a step and a decoding allocate, by the pixel and by the token: full-width layers with random weights on the CPU.

    python bench/memory.py            # four minutes on two cores, 3 GB
    python bench/memory.py --table    # what each family takes in each form, computed from the shapes alone

The peak is that of the live tensors beyond the weights, seen by a dispatch mode, so it needs no GPU.  The coefficients
are those of `fluxwerk.engines.local.memory`.
"""

from __future__ import annotations

import argparse
import platform
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import diffusers
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fluxwerk.engines.local.header import TensorEntry
from fluxwerk.engines.local.kind import KINDS
from fluxwerk.engines.local.memory import GIGABYTE, Need, amount, total
from fluxwerk.engines.local.plan import forms
from fluxwerk.engines.local.row import Row

TEXT_TOKENS = 512


class Peak(TorchDispatchMode):  # type: ignore[misc]
    """The most bytes of tensors that were made and alive at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {self._key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and self._key(leaf) not in known | self._seen:
                self._watch(leaf.untyped_storage())
        return found

    @staticmethod
    def _key(tensor: Any) -> int:
        return int(tensor.untyped_storage().data_ptr())

    def _watch(self, storage: Any) -> None:
        key, size = int(storage.data_ptr()), int(storage.nbytes())
        self._seen.add(key)
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def step(heads: int, side: int) -> float:
    """Return the bytes of a step for each token and each unit of the width."""
    model = diffusers.Flux2Transformer2DModel(
        num_layers=1, num_single_layers=1, num_attention_heads=heads, joint_attention_dim=7680, guidance_embeds=False
    ).to(torch.bfloat16)
    count, width = (side // 16) ** 2, heads * 128
    given = {
        "hidden_states": torch.zeros(1, count, 128, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.zeros(1, TEXT_TOKENS, 7680, dtype=torch.bfloat16),
        "timestep": torch.ones(1, dtype=torch.bfloat16),
        "img_ids": torch.zeros(count, 4),
        "txt_ids": torch.zeros(TEXT_TOKENS, 4),
        "guidance": None,
    }
    with Peak() as peak:
        model(**given)
    return float(peak.most) / ((count + TEXT_TOKENS) * width)


def decode(side: int) -> float:
    """Return the bytes of a decoding for each pixel."""
    vae = diffusers.AutoencoderKLFlux2().to(torch.bfloat16)
    with Peak() as peak:
        vae.decode(torch.zeros(1, 32, side // 8, side // 8, dtype=torch.bfloat16))
    return float(peak.most) / side**2


def _flux2(double: int, single: int, heads: int, text: int, *, guided: bool = False) -> Any:
    return diffusers.Flux2Transformer2DModel(
        num_layers=double,
        num_single_layers=single,
        num_attention_heads=heads,
        joint_attention_dim=text,
        guidance_embeds=guided,
    )


def _qwen3(hidden: int, inner: int, *, tied: bool) -> dict[str, Any]:
    sizes = {"vocab_size": 151936, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 36}
    return {**sizes, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": tied}


def _mistral() -> Any:
    sizes = {"vocab_size": 131072, "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    text = {"model_type": "mistral", "tie_word_embeddings": False, **sizes, **heads}
    return transformers.Mistral3ForConditionalGeneration(transformers.Mistral3Config(text_config=text))


def _t5() -> Any:
    sizes = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    return transformers.T5EncoderModel(transformers.T5Config(feed_forward_proj="gated-gelu", **sizes))


def _qwen3_vl() -> Any:
    text = _qwen3(2560, 9728, tied=True)
    return transformers.Qwen3VLForConditionalGeneration(
        transformers.Qwen3VLConfig(text_config=text, tie_word_embeddings=True)
    )


# By kind: the transformer, its text encoder and its VAE, in full size.
FULL: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "klein": (
        lambda: _flux2(5, 20, 24, 7680),
        lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_qwen3(2560, 9728, tied=True))),
    ),
    "klein-kv": (
        lambda: _flux2(8, 24, 32, 12288),
        lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_qwen3(4096, 12288, tied=False))),
    ),
    "dev": (lambda: _flux2(8, 48, 48, 15360, guided=True), _mistral),
    "flux1-dev": (lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True), _t5),
    "flux3-klein": (lambda: diffusers.Flux3Transformer2DModel(flow_map=True), _qwen3_vl),
}
TITLES = {"klein": "klein 4B", "klein-kv": "klein 9B", "dev": "dev", "flux1-dev": "FLUX.1 dev", "flux3-klein": "FLUX.3"}


def table() -> None:
    """Print what each family takes with an image of a megapixel, in each form, in gigabytes."""
    print("| form | " + " | ".join(TITLES[kind] for kind in FULL) + " |")
    print("|---" * (len(FULL) + 1) + "|")
    needs = {kind: _need(kind) for kind in FULL}
    print("| *billions in the transformer* | " + " | ".join(_billions(one) for one in needs.values()) + " |")
    for form in forms("int8"):
        cells = []
        for kind, one in needs.items():
            row = Row("flux-2-dev", kind, KINDS[kind], tile=True, **form.columns)
            absent = form.columns.get("offload") == "model" and kind == "flux3-klein"
            cells.append("–" if absent else f"{total([(row, one)], (1024, 1024)) / GIGABYTE:.1f}")
        print(f"| {form.words} | " + " | ".join(cells) + " |")


def _billions(one: Need) -> str:
    return f"{(one.transformer.matrices + one.transformer.others) / 10**9:.2f}"


def _need(kind: str) -> Need:
    with torch.device("meta"):
        transformer, encoder = (build() for build in FULL[kind])
        vae = diffusers.AutoencoderKLFlux2()
    parts = [amount(_header(part)) for part in (transformer, encoder, vae)]
    return Need(parts[0], parts[1], parts[2], 2, int(transformer.inner_dim))


def _header(module: Any) -> dict[str, TensorEntry]:
    return {name: TensorEntry("BF16", tuple(one.shape), 2 * one.numel()) for name, one in module.named_parameters()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    if parser.parse_args().table:
        table()
        return
    torch.set_grad_enabled(mode=False)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or 'CPU'}, torch {torch.__version__}, bfloat16")
    for heads, side in ((24, 512), (24, 1024), (32, 512)):
        print(f"step, width {heads * 128}, {side}²: {step(heads, side):.1f} bytes for each token and unit of width")
    for side in (256, 512):
        print(f"decoding, {side}²: {decode(side):.0f} bytes for each pixel")


if __name__ == "__main__":
    main()
