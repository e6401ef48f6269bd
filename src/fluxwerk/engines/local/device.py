"""Devices: what differs between a GPU and a CPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fluxwerk.engines.local.foreign import torch

# The first generation of GPUs that multiply FP8 numbers.
FP8_CAPABILITY = (8, 9)

_STREAMS = threading.local()

log = logging.getLogger("fluxwerk.engines.local")


def dtype(name: str | None, device: str) -> Any:
    """Return the number format of that name, or the default of the device."""
    return getattr(torch, name or ("float32" if device == "cpu" else "bfloat16"))


@contextmanager
def stream(device: str) -> Generator[None]:
    """Run the block on the thread's own stream, and wait at its end until the stream has finished.

    Encoders and the VAE then overlap with the denoising of other samples, and a result may be used on any stream.
    """
    if not device.startswith("cuda"):
        yield
        return
    # Each thread keeps one stream: torch caches memory by stream, and a new stream could not reuse it.
    own = getattr(_STREAMS, device, None) or torch.cuda.Stream(device)
    setattr(_STREAMS, device, own)
    own.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(own):
        yield
    own.synchronize()


def synchronize(device: str) -> None:
    """Wait until the device has finished the work of this thread; other threads' work may continue."""
    if device.startswith("cuda"):
        torch.cuda.current_stream(device).synchronize()


def free_memory(device: str) -> None:
    """Release cached memory after the device has run out of it."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def is_lost(fault: Exception) -> bool:
    """Say whether the device itself failed, so that nothing more can be computed in this process."""
    # torch before 2.8 has no class for such errors.
    return isinstance(fault, getattr(torch, "AcceleratorError", ())) or str(fault).startswith("CUDA error")


def quantize(module: Any, how: str, compute: Any, device: str) -> None:
    """Convert the matrices of a module to one byte a value.

    int8 is for storage: a matrix is multiplied in the format of `compute`. fp8 is multiplied as it is where GPU and
    torchao can, else it is for storage too.
    """
    if how == "int8":
        ao: Any = import_module("torchao.quantization")
        ao.quantize_(module, ao.Int8WeightOnlyConfig())
        return
    able = device.startswith("cuda") and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    if able and find_spec("torchao") is not None:
        ao = import_module("torchao.quantization")
        ao.quantize_(module, ao.Float8DynamicActivationFloat8WeightConfig())
        return
    if able:
        log.warning("FP8 saves memory only, because torchao is not installed; install torchao to multiply in FP8.")
    module.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)


def stream_blocks(module: Any, device: str, *, leaves: bool = False) -> None:
    """Keep the weights of a module in main memory, and move each block to the device while the one before computes."""
    hooks: Any = import_module("diffusers.hooks")
    hooks.apply_group_offloading(
        module,
        onload_device=torch.device(device),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level" if leaves else "block_level",
        num_blocks_per_group=None if leaves else 1,
        use_stream=device.startswith("cuda"),
    )
