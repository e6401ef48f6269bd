"""The engine that runs open FLUX weights on your own GPU.

`LocalEngine` is part of the server's process and does not load torch; each device has its own process, which does.
The modules:

    weights, kind, ability   which folder serves which model, what such weights can do, which options they honour
    engine, process, message the server's side: processes, restarts, messages
    worker, load, warm       the process on a device: load folders into pipelines, and warm them up
    stages, loop, group      the way of an order: text encoder, steps, VAE; which samples step next
    family, flux2, ...       what the loop needs from a pipeline, for each generation of FLUX
"""

from __future__ import annotations

from fluxwerk.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
