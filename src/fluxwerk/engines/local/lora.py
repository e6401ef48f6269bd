"""LoRAs that requests choose: loaded when first wanted, and each sample of a shared pass has its own strengths."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from fluxwerk.engines.local import ability
from fluxwerk.engines.local.foreign import Pipeline, Tensor, torch
from fluxwerk.engines.local.sample import Sample

# LoRAs in memory at a time; the one that was not wanted for longest makes room.
HELD_LORAS = 8
# Layers of text encoders are left out: the encoder is shared, and it may be cut or quantised.
TEXT_KEYS = ("text_encoder", "lora_te", "te1_", "te2_")


class UnusableLoraError(Exception):
    """A LoRA does not fit the weights, or its file cannot be read."""


class LoraStack:
    """The LoRAs of one transformer; for the thread that steps."""

    def __init__(self) -> None:
        # By name in the folder: the name in peft, which changes with the file.
        self._held: dict[str, str] = {}
        self._strengths: dict[str, Tensor] = {}
        self._scales: dict[tuple[int, str], float] = {}
        self._hooked: set[int] = set()

    def apply(self, pipe: Pipeline, folder: str | None, samples: Sequence[Sample]) -> None:
        """Make the next pass use the LoRAs of these samples; raises `UnusableLoraError`."""
        chosen = [dict(ability.loras(sample.order)) for sample in samples]
        names = sorted({name for one in chosen for name in one})
        transformer = pipe.transformer
        if not names:
            if self._held:
                transformer.disable_adapters()
            return
        assert folder is not None, "orders with a LoRA are refused without a folder"
        loaded = {name: self._load(pipe, Path(folder) / f"{name}.safetensors", keep=len(names)) for name in names}
        transformer.enable_adapters()
        transformer.set_adapters(list(loaded.values()))
        self._strengths = {
            adapter: torch.tensor([one.get(name, 0.0) for one in chosen], device=transformer.device)
            for name, adapter in loaded.items()
        }
        for layer in _layers(transformer):
            for adapter in self._strengths:
                if adapter in layer.scaling:
                    self._scales[id(layer), adapter] = float(layer.scaling[adapter])
            if id(layer) not in self._hooked:
                self._hooked.add(id(layer))
                layer.register_forward_pre_hook(self._scale)

    def _scale(self, layer: Any, given: tuple[Tensor, ...]) -> None:
        """Give each sample of the batch its own strengths, whichever rank the layer's input has."""
        shape = (-1, *(1,) * (given[0].ndim - 1))
        for adapter, strengths in self._strengths.items():
            if adapter in layer.scaling:
                layer.scaling[adapter] = (self._scales[id(layer), adapter] * strengths).view(shape).to(given[0].dtype)

    def _load(self, pipe: Pipeline, file: Path, keep: int) -> str:
        """Return the name of a LoRA in peft, and load the file if it is new or has changed."""
        try:
            adapter = f"{file.stem}-{file.stat().st_mtime_ns}".replace(".", "_")
            if self._held.get(file.stem) != adapter:
                self._drop(pipe, file.stem)
                tensors = import_module("safetensors.torch").load_file(str(file))
                kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(TEXT_KEYS)}
                with warnings.catch_warnings():
                    # peft warns of a second LoRA, which is meant here.
                    warnings.filterwarnings("ignore", message="Already found a `peft_config`")
                    # And of int8 weights, which could not be merged with it; they need not be.
                    warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")
                    pipe.load_lora_weights(kept, adapter_name=adapter)
                _widen(pipe.transformer, adapter, pipe.vae.dtype)
        except Exception as fault:
            # peft and diffusers raise many kinds of errors for a file that does not fit.
            raise UnusableLoraError(f"the LoRA {file.stem} cannot be used: {type(fault).__name__}: {fault}") from fault
        # The latest is the last.
        self._held.pop(file.stem, None)
        self._held[file.stem] = adapter
        while len(self._held) > max(HELD_LORAS, keep):
            self._drop(pipe, next(iter(self._held)))
        return adapter

    def _drop(self, pipe: Pipeline, name: str) -> None:
        adapter = self._held.pop(name, None)
        if adapter is not None:
            pipe.transformer.delete_adapters(adapter)


_STACKS: WeakKeyDictionary[Any, LoraStack] = WeakKeyDictionary()


def apply(pipe: Pipeline, folder: str | None, samples: Sequence[Sample]) -> None:
    """Make the next pass of a pipeline use the LoRAs of these samples; families of the same weights share them."""
    _STACKS.setdefault(pipe.transformer, LoraStack()).apply(pipe, folder, samples)


def _layers(transformer: Any) -> list[Any]:
    kind: Any = import_module("peft.tuners.lora").LoraLayer
    return [module for module in transformer.modules() if isinstance(module, kind)]


def _widen(transformer: Any, adapter: str, dtype: Any) -> None:
    """Give a LoRA on fp8 weights a number format that can be multiplied; peft gives it that of the weights."""
    for name, parameter in transformer.named_parameters():
        if f".{adapter}." in name and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
