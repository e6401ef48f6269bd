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


def quantize(transformer: Any, how: str, compute: Any, device: str) -> None:
    """Convert the transformer's weights to FP8: for multiplication where GPU and torchao can, else for storage only."""
    assert how == "fp8"
    able = device.startswith("cuda") and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    if able and find_spec("torchao") is not None:
        ao: Any = import_module("torchao.quantization")
        ao.quantize_(transformer, ao.Float8DynamicActivationFloat8WeightConfig())
        return
    if able:
        log.warning("FP8 saves memory only, because torchao is not installed; install torchao to multiply in FP8.")
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)
