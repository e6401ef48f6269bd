"""The libraries that run the weights, for the engine's own process only.

Their types are `Any`: torch and diffusers are an extra, their types change with each release, and type checking must
also work on a machine that does not have them.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, TypeAlias

# A checkpoint may contain tensors and configurations, but not code.
os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "true")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

torch: Any = import_module("torch")
numpy: Any = import_module("numpy")
diffusers: Any = import_module("diffusers")
transformers: Any = import_module("transformers")

Tensor: TypeAlias = Any
Pipeline: TypeAlias = Any

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
