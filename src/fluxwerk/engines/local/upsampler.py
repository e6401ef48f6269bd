"""Prompt upsampling: a small language model writes a short prompt out before it is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from fluxwerk.bounded import BoundedDict
from fluxwerk.engines import Order
from fluxwerk.engines.local import instructions
from fluxwerk.engines.local.canvas import flatten
from fluxwerk.engines.local.folder import read_json
from fluxwerk.engines.local.foreign import torch, transformers
from fluxwerk.engines.local.processor import load_seeing
from fluxwerk.engines.local.row import Row

REMEMBERED_PROMPTS = 32
# What a folder's config.json may name as its class.
CLASSES = ("ForCausalLM", "ForConditionalGeneration")


class Upsampler:
    """Writes prompts out, the same prompt always in the same way; for one thread at a time.

    `sees` says whether it gets the references too.
    """

    def __init__(self, folder: Path, device: str, dtype: Any, pipeline: str, *, sees: bool) -> None:
        named = read_json(folder / "config.json").get("architectures", ["model without a class"])[0]
        if not str(named).endswith(CLASSES):
            raise ValueError(f"{folder.name} is a {named}, which does not write text")
        options = {"local_files_only": True, "trust_remote_code": False}
        self._model = getattr(transformers, named).from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, **options
        )
        self._model.to(device).eval()
        home = _processor_home(folder)
        self._processor = (
            load_seeing(home) if sees else transformers.AutoTokenizer.from_pretrained(str(home), **options)
        )
        self._sees, self._pipeline = sees, pipeline
        self._known: BoundedDict[tuple[object, ...], str] = BoundedDict(REMEMBERED_PROMPTS)

    def __call__(self, prompt: str, references: Sequence[bytes] = ()) -> str:
        """Return the prompt written out, or the prompt itself if the model answers nothing."""
        key = (prompt, *(sha256(data).digest() for data in references))
        if key not in self._known:
            self._known.put(key, self._write(prompt, references) or prompt)
        return self._known[key]

    def _write(self, prompt: str, references: Sequence[bytes]) -> str:
        if self._sees:
            messages = instructions.for_images(prompt, [flatten(data) for data in references])
        else:
            messages = instructions.for_text(self._pipeline, prompt)
        # Without thinking, which models of Qwen do unless their template is told not to.
        given = self._processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            enable_thinking=False,
        ).to(self._model.device)
        with torch.no_grad():
            found = self._model.generate(
                **given, do_sample=False, max_new_tokens=instructions.most_tokens(self._pipeline)
            )
        answer = self._processor.decode(found[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        return str(answer).strip()


def upsample(row: Row, order: Order, device: str, dtype: Any) -> Order:
    """Return the order with its prompt written out, if it asks for that and the row has a model for it."""
    if row.upsampler is None or not order.options.get("prompt_upsampling"):
        return order
    write = _loaded(row.upsampler, row.kind.pipeline, device, dtype, sees=row.upsampler_sees())
    return replace(order, prompt=write(order.prompt, order.references))


@cache
def _loaded(folder: str, pipeline: str, device: str, dtype: Any, *, sees: bool) -> Upsampler:
    return Upsampler(Path(folder), device, dtype, pipeline, sees=sees)


def _processor_home(folder: Path) -> Path:
    """Return where the tokenizer lies: in the folder, or beside it as a saved pipeline of blocks has it."""
    beside = folder.with_name(f"{folder.name}_processor")
    return beside if beside.is_dir() and not (folder / "tokenizer_config.json").is_file() else folder
