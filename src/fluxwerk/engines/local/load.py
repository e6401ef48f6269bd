"""Load folders into pipelines on a device: only tensors, and only in the requested number format."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fluxwerk.engines.local import device as place
from fluxwerk.engines.local import modular
from fluxwerk.engines.local.assembly import assemble
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.flux1 import Fill, Flux1, Kontext
from fluxwerk.engines.local.flux2 import Flux2
from fluxwerk.engines.local.flux3 import Flux3
from fluxwerk.engines.local.foreign import Pipeline, diffusers, torch
from fluxwerk.engines.local.inpaint import KleinInpaint
from fluxwerk.engines.local.kv import KleinKV
from fluxwerk.engines.local.row import Row

FAMILIES: dict[str, type[Family]] = {
    "Flux2KleinPipeline": KleinInpaint,
    "Flux2KleinKVPipeline": KleinKV,
    "Flux2Pipeline": Flux2,
    "Flux3ModularPipeline": Flux3,
    "Flux3DistilledModularPipeline": Flux3,
    "FluxPipeline": Flux1,
    "FluxKontextPipeline": Kontext,
    "FluxFillPipeline": Fill,
}

ENCODERS = ("text_encoder", "text_encoder_2")

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
    try:
        pipe = _whole(row, wanted)
    except (OSError, ValueError, KeyError, RuntimeError) as fault:
        raise UnloadableError(f"{row.label()} cannot be loaded: {fault}") from fault
    _check(row, pipe, wanted)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(requires_grad=False)
    pipe.set_progress_bar_config(disable=True)
    _fuse(row, pipe)
    _place(row, pipe, device, wanted)
    return pipe


def _place(row: Row, pipe: Pipeline, device: str, wanted: Any) -> None:
    """Give each part its form and its place."""
    encoders = [part for name, part in pipe.components.items() if name in ENCODERS and part is not None]
    if row.quantize:
        place.quantize(pipe.transformer, row.quantize, wanted, device)
    if row.quantize_text:
        for encoder in encoders:
            place.quantize(encoder, row.quantize_text, wanted, device)
    if row.tile:
        pipe.vae.enable_tiling()
    if row.offload == "model":
        if row.kind.pipeline in modular.BLOCKS:
            raise UnloadableError(f'{row.label()}: offload = "model" is not for FLUX.3; set offload = "layers".')
        pipe.enable_model_cpu_offload(device=device)
    elif row.offload == "layers":
        pipe.vae.to(device)
        place.stream_blocks(pipe.transformer, device)
        for encoder in encoders:
            place.stream_blocks(encoder, device, leaves=True)
    elif row.text_device:
        pipe.vae.to(device)
        pipe.transformer.to(device)
    else:
        pipe.to(device)


def _whole(row: Row, wanted: Any) -> Pipeline:
    """Return the pipeline of a file and its parts, of a folder, or of a name on the Hub."""
    if row.is_file():
        return assemble(row, wanted)
    if row.kind.pipeline in modular.BLOCKS:
        return modular.load_folder(Path(row.path), row.kind.pipeline, wanted)
    kind = getattr(diffusers, row.kind.pipeline)
    return kind.from_pretrained(
        str(row.path), dtype=wanted, use_safetensors=True, local_files_only=not row.hub, trust_remote_code=False
    )


def _check(row: Row, pipe: Pipeline, wanted: Any) -> None:
    """Raise `UnloadableError` if a loader ignored the number format, which would double the memory."""
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        part = getattr(pipe, name, None)
        if part is not None and not hasattr(part, "hf_quantizer") and part.dtype != wanted:
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
