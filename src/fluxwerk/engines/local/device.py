"""Where tensors live: what differs between a GPU and a CPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fluxwerk.engines.local.foreign import torch

# The first generation of cards that multiply FP8 numbers.
FP8_CAPABILITY = (8, 9)

_LANES = threading.local()

log = logging.getLogger("fluxwerk.engines.local")


def dtype(name: str | None, device: str) -> Any:
    """Return the number format that was asked for, or the one that suits the device."""
    return getattr(torch, name or ("float32" if device == "cpu" else "bfloat16"))


@contextmanager
def lane(device: str) -> Generator[None]:
    """Run on the thread's own stream, and leave only when everything on it is done.

    So the encoders and the VAE overlap with the denoising of others, and what leaves a lane may be used in any other.
    """
    if not device.startswith("cuda"):
        yield
        return
    # One stream for each thread and for good: memory is kept by stream, and a new one could use none of it.
    stream = getattr(_LANES, device, None) or torch.cuda.Stream(device)
    setattr(_LANES, device, stream)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def settle(device: str) -> None:
    """Wait until the device has done what this thread gave it; what others gave it may go on."""
    if device.startswith("cuda"):
        torch.cuda.current_stream(device).synchronize()


def tidy(device: str) -> None:
    """Give unused memory back, after it ran out."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def is_lost(fault: Exception) -> bool:
    """Say whether the device itself failed: after that nothing can be computed in this process, whatever it is."""
    # Releases of torch before 2.8 have no class of their own for it.
    return isinstance(fault, getattr(torch, "AcceleratorError", ())) or str(fault).startswith("CUDA error")


def quantize(transformer: Any, how: str, compute: Any, device: str) -> None:
    """Make the transformer's weights FP8: multiplied as such where the card and torchao can, else only kept as such."""
    assert how == "fp8"
    able = device.startswith("cuda") and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    if able and find_spec("torchao") is not None:
        ao: Any = import_module("torchao.quantization")
        ao.quantize_(transformer, ao.Float8DynamicActivationFloat8WeightConfig())
        return
    if able:
        log.warning("FP8 saves memory only: without the package torchao nothing is multiplied in FP8.")
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)
