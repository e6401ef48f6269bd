"""The options of `fluxwerk serve` for open weights, and the engine that they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.engines import LiveEngine

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.option("--weights", metavar="DIR|FILE|TOML", help="diffusers: folder or file of weights, or a weights.toml."),
    click.option(
        "--device", metavar="NAME,...", help="diffusers: devices such as cuda:0,cuda:1; by default every GPU."
    ),
    click.option(
        "--memory",
        metavar="AMOUNT",
        help="diffusers: memory to use on each device, such as 24G; by default what it has.",
    ),
    click.option(
        "--compile", "compiled", is_flag=True, help="diffusers: compile the transformer; the start takes minutes."
    ),
    click.option(
        "--quantize", type=click.Choice(["fp8", "int8"]), help="diffusers: quantize the weights of the transformer."
    ),
    click.option(
        "--loras",
        type=click.Path(file_okay=False, exists=True),
        help="diffusers: folder of LoRAs that requests may choose, as name.safetensors.",
    ),
    click.option("--previews", is_flag=True, help="diffusers: send a preview of the image with each poll."),
)
NAMES = {"compiled": "compile"}


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What the options say."""

    weights: str | None = None
    device: str | None = None
    memory: str | None = None
    compiled: bool = False
    quantize: str | None = None
    previews: bool = False
    loras: str | None = None

    def given(self) -> dict[str, object]:
        """Return each option by its name on the command line."""
        return {NAMES.get(column.name, column.name): getattr(self, column.name) for column in fields(self)}


def local_options(command: F) -> F:
    """Add the options to a command."""
    return reduce(lambda made, option: option(made), reversed(OPTIONS), command)


def local_engine(settings: LocalSettings) -> LiveEngine:
    """Create the engine; print licences, and the form in which the weights fit into memory."""
    from fluxwerk.engines.local import LocalEngine  # noqa: PLC0415  (no torch: its processes load that)
    from fluxwerk.engines.local.engine import check_packages, find_devices, licences  # noqa: PLC0415
    from fluxwerk.engines.local.plan import MemoryBudget, bytes_of, fit  # noqa: PLC0415
    from fluxwerk.engines.local.weights import read  # noqa: PLC0415

    if settings.weights is None:
        hint = "a folder such as FLUX.2-klein-4B, a file of weights, or a weights.toml"
        raise InvalidUsageError("", faults=[Fault("--weights", None, "is required with --engine diffusers", hint)])
    table = read(settings.weights).quantized(settings.quantize).with_loras(settings.loras)
    if settings.loras and settings.compiled:
        raise InvalidUsageError("--loras and --compile exclude each other; compiled blocks do not take LoRAs.")
    capacity = bytes_of(settings.memory) if settings.memory else None
    check_packages()
    devices = find_devices(settings.device, ask=capacity is None)
    for line in licences(table):
        click.echo(line, err=True)
    budgets: list[MemoryBudget] = []
    for device in devices:
        if (most := capacity or device.memory) and table.on(device.name):
            table, budget, said = fit(table, device.name, most, eight_bits=device.eight_bits)
            budgets += [budget] if budget else []
            for line in said:
                click.echo(line, err=True)
    names = [device.name for device in devices]
    click.echo(f"The weights are loaded on {', '.join(names)}; GET /healthz reports when they are ready.", err=True)
    return LocalEngine(table, names, compiled=settings.compiled, previews=settings.previews, budgets=budgets)
