"""Open weights as an engine of the server: one process for each device, orders to whichever has the least to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec

from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Health, Order, Report
from fluxwerk.engines.local.ability import Ability
from fluxwerk.engines.local.message import Setup
from fluxwerk.engines.local.process import COMMAND, EngineNotReadyError, Process
from fluxwerk.engines.local.weights import Weights
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.types import Json

NEEDED = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
PROBE = """
import torch
cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
mps = ["mps"] if torch.backends.mps.is_available() else []
print(",".join(cuda or mps or ["cpu"]))
"""
# The side of the image that is made at start: what is asked for most on a GPU, the least on a CPU.
WARM = {"cpu": 64}
WARM_ON_GPU = 1024


class LocalEngine:
    """A `LiveEngine` over open weights; this process never loads torch, its children do."""

    name = "diffusers"

    def __init__(
        self,
        weights: Weights,
        devices: Sequence[str] = ("cpu",),
        *,
        compiled: bool = False,
        previews: bool = False,
        budget: float | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.weights = weights
        self._ability = Ability(weights)
        self.processes = [
            Process(
                Setup(
                    device,
                    weights.on(device),
                    compiled,
                    previews,
                    budget,
                    WARM.get(device, WARM_ON_GPU),
                ),
                command=command,
            )
            for device in devices
            if weights.on(device)
        ]
        _check_devices(weights, devices)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Start the processes; orders may be given at once and wait until one is ready."""
        for process in self.processes:
            process.start()
        try:
            yield
        finally:
            for process in self.processes:
                await process.close()

    async def paint(self, order: Order, report: Report) -> bytes:
        """Give the order to the process with the least to do, of those that hold its weights."""
        able = [process for process in self.processes if any(row.model == order.model for row in process.setup.rows)]
        usable = [process for process in able if process.state != "broken"]
        if not usable:
            raise EngineNotReadyError("; ".join(process.why for process in able))
        # One that is loading is left alone as long as another is ready.
        best = min(usable, key=lambda process: (process.state != "ready", process.load))
        return await best.paint(order, report)

    def faults(self, order: Order) -> Sequence[Fault]:
        """Name everything in the order that the weights could not honour."""
        return self._ability.faults(order)

    def facts(self, model: Model) -> Mapping[str, Json] | None:
        """Say what the weights honour of a model."""
        return self._ability.facts(model)

    def health(self) -> Health:
        """Ready when every process is, loading until the first is, degraded when one died or cannot load."""
        states = [process.state for process in self.processes]
        word = "degraded"
        if all(state == "ready" for state in states):
            word = "ready"
        elif all(state in ("ready", "loading") for state in states):
            word = "loading"
        told: list[Json] = [
            {"device": process.setup.device, "state": process.state, "orders": process.load}
            | {"restarts": process.restarts}
            | ({"why": process.why} if process.why else {})
            for process in self.processes
        ]
        return Health(word, serving="ready" in states, details={"processes": told})


def check_packages() -> None:
    """Raise `InvalidUsageError` if anything is missing that renders, without loading any of it."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        what = f"The engine needs more packages ({', '.join(missing)})"
        raise InvalidUsageError(
            f"{what}: pip install 'fluxwerk[diffusers]'; on a machine without a GPU install torch's CPU build."
        )


def find_devices(wanted: str | None) -> tuple[str, ...]:
    """Return the devices named, separated by commas, or every GPU of this machine, or its CPU."""
    if wanted:
        named = tuple(part.strip() for part in wanted.split(","))
        if not all(named) or len(set(named)) < len(named):
            raise InvalidUsageError(
                "", faults=[Fault("--device", wanted, "must name each device once", "such as cuda:0,cuda:1")]
            )
        return named
    # Asked in another process: torch is large, and the server has no other use for it.
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InvalidUsageError(
            "", faults=[Fault("--device", None, f"torch cannot be asked for devices: {last}", "name one")]
        )
    return tuple(found.stdout.strip().split(","))


def licences(weights: Weights) -> Iterable[str]:
    """Say of each model whose weights serve it, and under which licence, for the terminal."""
    for row in weights.rows.values():
        yield f"{row.model}: {row.label()} ({row.kind.pipeline}), licence {row.licence or 'not stated'}"


def _check_devices(weights: Weights, devices: Sequence[str]) -> None:
    lost = [row for row in weights.rows.values() if row.device and row.device not in devices]
    if lost:
        held = ", ".join(devices)
        faults = [Fault(f"{row.model}.device", row.device, f"is not in use; in use are {held}") for row in lost]
        raise InvalidUsageError("weights.toml:", faults=faults)
