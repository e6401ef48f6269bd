"""The engine that runs open FLUX weights on your own GPU.

`LocalEngine` lives in the server's process and knows no torch; each device has a process of its own, which does.
What each file is for:

    weights, kind, ability   which folder serves which model, what such weights can do, what they honour
    engine, process, message the server's side: processes, restarts, what is said to them
    worker, load, warm       the other side: from folders to pipelines that are ready
    stages, loop, group      orders through text encoder, steps and VAE; who takes the next step
    family, flux2, ...       what the loop asks of a pipeline, answered by each generation of FLUX
"""

from __future__ import annotations

from fluxwerk.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
