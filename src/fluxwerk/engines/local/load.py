"""Load folders into pipelines on a device: only tensors, and only in the requested number format."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from fluxwerk.engines.local import device as place
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.flux1 import Fill, Flux1, Kontext
from fluxwerk.engines.local.flux2 import Flux2
from fluxwerk.engines.local.foreign import Pipeline, diffusers, torch
from fluxwerk.engines.local.inpaint import KleinInpaint
from fluxwerk.engines.local.kv import KleinKV
from fluxwerk.engines.local.weights import Row

FAMILIES: dict[str, type[Family]] = {
    "Flux2KleinPipeline": KleinInpaint,
    "Flux2KleinKVPipeline": KleinKV,
    "Flux2Pipeline": Flux2,
    "FluxPipeline": Flux1,
    "FluxKontextPipeline": Kontext,
    "FluxFillPipeline": Fill,
}

log = logging.getLogger("fluxwerk.engines.local")


class UnloadableError(Exception):
    """The weights cannot be used, and another attempt would fail too."""


def load(rows: Iterable[Row], device: str, *, compiled: bool = False) -> dict[str, Family]:
    """Return the family that serves each row, by model; rows of the same weights share one copy."""
    shared: dict[object, Family] = {}
    families: dict[str, Family] = {}
    for row in rows:
        first = shared.get(row.place())
        if first is None:
            pipe = _pipeline(row, device)
            if compiled:
                _compile(pipe)
            first = FAMILIES[row.kind.pipeline](pipe, row, device)
            shared[row.place()] = first
        families[row.model] = first if first.row is row else type(first)(first.pipe, row, device, first.encoder)
    return families


def _pipeline(row: Row, device: str) -> Pipeline:
    wanted = place.dtype(row.dtype, device)
    kind = getattr(diffusers, row.kind.pipeline)
    try:
        pipe = kind.from_pretrained(
            str(row.path), dtype=wanted, use_safetensors=True, local_files_only=not row.hub, trust_remote_code=False
        )
    except (OSError, ValueError) as fault:
        raise UnloadableError(f"{row.label()} cannot be loaded: {fault}") from fault
    _check(row, pipe, wanted)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(requires_grad=False)
    pipe.set_progress_bar_config(disable=True)
    _fuse(row, pipe)
    if row.quantize:
        place.quantize(pipe.transformer, row.quantize, wanted, device)
    if row.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


def _check(row: Row, pipe: Pipeline, wanted: Any) -> None:
    """Raise `UnloadableError` if a loader ignored the number format, which would double the memory."""
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        part = getattr(pipe, name, None)
        if part is not None and part.dtype != wanted:
            raise UnloadableError(f"{row.label()}: {name} was loaded as {part.dtype} instead of {wanted}.")


def _fuse(row: Row, pipe: Pipeline) -> None:
    """Fuse the LoRAs into the weights, so that they cost no time at each step."""
    if not row.loras:
        return
    try:
        names = [f"lora_{number}" for number in range(len(row.loras))]
        for name, lora in zip(names, row.loras, strict=True):
            pipe.load_lora_weights(lora.path, adapter_name=name)
        pipe.set_adapters(names, [lora.scale for lora in row.loras])
        pipe.fuse_lora(components=["transformer"], adapter_names=names)
        pipe.unload_lora_weights()
    except (OSError, ValueError, KeyError, ImportError) as fault:
        raise UnloadableError(f"{row.label()}: a LoRA cannot be used: {fault}") from fault


def _compile(pipe: Pipeline) -> None:
    """Compile the repeated blocks; `dynamic`, because otherwise each batch and each size is compiled again."""
    # Each rank and layout of the inputs is a program of its own, and the default limit is eight.
    torch._dynamo.config.cache_size_limit = 64  # noqa: SLF001  (torch's own way to set it)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=True)
