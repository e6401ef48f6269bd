"""The local engine: one process for each device, and each order goes to the process with the fewest orders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from fluxwerk.catalog.rows import Model
from fluxwerk.engines import CAPACITY, Health, Order, Report
from fluxwerk.engines.local.ability import Ability
from fluxwerk.engines.local.message import Setup
from fluxwerk.engines.local.plan import MemoryBudget
from fluxwerk.engines.local.process import COMMAND, EngineNotReadyError, Process
from fluxwerk.engines.local.row import Weights
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.types import Json

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
FIND_DEVICES = """
import json, torch
cuda = torch.cuda
found = [
    (f"cuda:{number}", cuda.get_device_properties(number).total_memory, cuda.get_device_capability(number) >= (8, 9))
    for number in range(cuda.device_count())
]
mps = [("mps", None, False)] if torch.backends.mps.is_available() else []
print(json.dumps(found or mps or [("cpu", None, False)]))
"""
# The side of the warm-up image: the most frequent size on a GPU, the smallest on a CPU.
WARM_SIDES = {"cpu": 64}
WARM_SIDE_ON_GPU = 1024


class LocalEngine:
    """A `LiveEngine` over open weights; the child processes load torch, this process does not."""

    name = "diffusers"
    capacity = CAPACITY

    def __init__(
        self,
        weights: Weights,
        devices: Sequence[str] = ("cpu",),
        *,
        compiled: bool = False,
        previews: bool = False,
        budget: float | None = None,
        budgets: Sequence[MemoryBudget] = (),
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.weights = weights
        self._ability = Ability(weights, budgets)
        self.processes = [
            Process(
                Setup(
                    device,
                    weights.on(device),
                    compiled,
                    previews,
                    budget,
                    WARM_SIDES.get(device, WARM_SIDE_ON_GPU),
                ),
                command=command,
            )
            for device in devices
            if weights.on(device)
        ]
        _check_devices(weights, devices)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Start the processes; orders are accepted at once and wait until one is ready."""
        for process in self.processes:
            process.start()
        try:
            yield
        finally:
            for process in self.processes:
                await process.close()

    async def paint(self, order: Order, report: Report) -> bytes:
        """Render the order on the process with the fewest orders, of those that have its weights."""
        able = [process for process in self.processes if any(row.model == order.model for row in process.setup.rows)]
        usable = [process for process in able if process.state != "broken"]
        if not usable:
            raise EngineNotReadyError("; ".join(process.why for process in able))
        # A process that is loading gets orders only if none is ready.
        best = min(usable, key=lambda process: (process.state != "ready", process.load))
        return await best.paint(order, report)

    def faults(self, order: Order) -> Sequence[Fault]:
        """Return a fault for each field of the order that the weights cannot honour."""
        return self._ability.faults(order)

    def facts(self, model: Model) -> Mapping[str, Json] | None:
        """Return which options of a model the weights honour."""
        return self._ability.facts(model)

    def health(self) -> Health:
        """Return ready if every process is, loading until the first is, degraded if one died or cannot load."""
        states = [process.state for process in self.processes]
        word = "degraded"
        if all(state == "ready" for state in states):
            word = "ready"
        elif all(state in ("ready", "loading") for state in states):
            word = "loading"
        processes: list[Json] = [
            {"device": process.setup.device, "state": process.state, "orders": process.load}
            | {"restarts": process.restarts}
            | ({"why": process.why} if process.why else {})
            for process in self.processes
        ]
        return Health(word, serving="ready" in states, details={"processes": processes})


def check_packages() -> None:
    """Raise `InvalidUsageError` if a package of the extra is missing; loads none of them."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InvalidUsageError(
            f"The diffusers engine needs packages that are not installed: {', '.join(missing)}. "
            "Run pip install 'fluxwerk[diffusers]'; on a machine without a GPU install torch's CPU build first."
        )


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """A device, its memory in bytes if torch tells it, and the form of one byte that it multiplies fastest."""

    name: str
    memory: float | None = None
    eight_bits: str = "int8"


def find_devices(wanted: str | None, *, ask: bool = True) -> tuple[LocalDevice, ...]:
    """Return the named devices, separated by commas; without a name every GPU of this machine, or its CPU.

    torch tells the memory of named GPUs only if it is asked, which takes seconds.
    """
    named: tuple[str, ...] = ()
    if wanted:
        named = tuple(part.strip() for part in wanted.split(","))
        if not all(named) or len(set(named)) < len(named):
            raise InvalidUsageError(
                "", faults=[Fault("--device", wanted, "must name each device once", "for example cuda:0,cuda:1")]
            )
        if not ask or not any(name.startswith("cuda") for name in named):
            return tuple(map(LocalDevice, named))
    # torch is large, and the server has no other use for it, so a child process imports it.
    found = subprocess.run([sys.executable, "-c", FIND_DEVICES], capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no output"])[-1]
        raise InvalidUsageError(
            "",
            faults=[Fault("--device", None, f"torch cannot list them: {last}", "name one, for example cpu")],
        )
    rows = [(str(name), memory, bool(fp8)) for name, memory, fp8 in json.loads(found.stdout)]
    devices = {name: LocalDevice(name, memory, "fp8" if fp8 else "int8") for name, memory, fp8 in rows}
    # A device that torch does not have is reported by its process.
    return tuple(devices.get(name, LocalDevice(name)) for name in named) or tuple(devices.values())


def licences(weights: Weights) -> Iterable[str]:
    """Yield a line for each model: which weights serve it, and under which licence."""
    for row in weights.rows.values():
        yield f"{row.model}: {row.label()} ({row.kind.pipeline}), licence {row.licence or 'not stated'}"


def _check_devices(weights: Weights, devices: Sequence[str]) -> None:
    missing = [row for row in weights.rows.values() if row.device and row.device not in devices]
    if missing:
        held = ", ".join(devices)
        faults = [
            Fault(f"{row.model}.device", row.device, f"is not used here; the devices are {held}") for row in missing
        ]
        raise InvalidUsageError("weights.toml:", faults=faults)
