"""Prompt upsampling: a small language model writes a short prompt out before it is encoded."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fluxwerk.bounded import BoundedDict
from fluxwerk.engines import Order
from fluxwerk.engines.local.foreign import torch, transformers
from fluxwerk.engines.local.row import Row

MOST_NEW_TOKENS = 512
REMEMBERED_PROMPTS = 32
# What a folder's config.json may name as its class.
CLASSES = ("ForCausalLM", "ForConditionalGeneration")


class Upsampler:
    """Writes prompts out, the same prompt always in the same way; for one thread at a time."""

    def __init__(self, folder: Path, device: str, dtype: Any, system: str) -> None:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
        if not str(named).endswith(CLASSES):
            raise ValueError(f"{folder.name} is a {named}, which does not write text")
        options = {"local_files_only": True, "trust_remote_code": False}
        self._model = getattr(transformers, named).from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, **options
        )
        self._model.to(device).eval()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
        self._system = system
        self._known: BoundedDict[str, str] = BoundedDict(REMEMBERED_PROMPTS)

    def __call__(self, prompt: str) -> str:
        """Return the prompt written out, or the prompt itself if the model answers nothing."""
        if prompt not in self._known:
            self._known.put(prompt, self._write(prompt) or prompt)
        return self._known[prompt]

    def _write(self, prompt: str) -> str:
        messages = [{"role": "system", "content": self._system}, {"role": "user", "content": prompt}]
        # Without thinking, which models of Qwen do unless their template is told not to.
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        given = self._tokenizer(text, return_tensors="pt").to(self._model.device)
        with torch.no_grad():
            found = self._model.generate(
                input_ids=given["input_ids"],
                attention_mask=given["attention_mask"],
                do_sample=False,
                max_new_tokens=MOST_NEW_TOKENS,
            )
        answer = self._tokenizer.decode(found[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        return str(answer).strip()


def upsample(row: Row, order: Order, device: str, dtype: Any) -> Order:
    """Return the order with its prompt written out, if it asks for that and the row has a model for it."""
    if row.upsampler is None or not order.options.get("prompt_upsampling"):
        return order
    return replace(order, prompt=_loaded(row.upsampler, row.kind.pipeline, device, dtype)(order.prompt))


@cache
def _loaded(folder: str, pipeline: str, device: str, dtype: Any) -> Upsampler:
    return Upsampler(Path(folder), device, dtype, _system(pipeline))


def _system(pipeline: str) -> str:
    """Return BFL's own instructions for such weights, as diffusers has them."""
    if pipeline.startswith("Flux3"):
        module: Any = import_module("diffusers.modular_pipelines.flux3.prompt_upsampler")
        return str(module.SYSTEM_PROMPTS["t2i"])
    module = import_module("diffusers.pipelines.flux2.system_messages")
    return str(module.SYSTEM_MESSAGE_UPSAMPLING_T2I)
