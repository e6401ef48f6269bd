"""Fit weights into the memory of a device: the first form that leaves room for an image, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fluxwerk.catalog.sizes import MEGAPIXEL, Size
from fluxwerk.engines import Order
from fluxwerk.engines.local.memory import GIGABYTE, RESERVE, Need, need, total
from fluxwerk.engines.local.row import Row, Weights
from fluxwerk.errors import Fault, InvalidUsageError

# The image that must fit, and the one above which decoding in tiles is worth its seams.
USUAL_SIZE: Size = (1024, 1024)
LARGE_SIZE: Size = (2048, 2048)
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
# diffusers moves parts one at a time for pipelines that are not made of blocks only.
MADE_OF_BLOCKS = ("Flux3ModularPipeline", "Flux3DistilledModularPipeline")
# Sides that a hint names are multiples of this.
HINT_GRID = 64


@dataclass(frozen=True, slots=True)
class WeightForm:
    """One way to hold weights: the columns that it sets, in words, and what it costs."""

    words: str
    cost: str
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])


def forms(eight_bits: str) -> tuple[WeightForm, ...]:
    """Return the forms, the best first; `eight_bits` is the form of one byte that the device multiplies fastest."""
    on_cpu = "each new prompt is encoded on the CPU, which takes seconds"
    return (
        WeightForm("everything in its own number format on the device", "nothing"),
        WeightForm(f"the transformer in {eight_bits}", "pixels change slightly", {"quantize": eight_bits}),
        WeightForm(
            f"the transformer in {eight_bits} and the text encoder in int8",
            "pixels change slightly",
            {"quantize": eight_bits, "quantize_text": "int8"},
        ),
        WeightForm("the text encoder on the CPU", on_cpu, {"text_device": "cpu"}),
        WeightForm(
            f"the transformer in {eight_bits} and the text encoder on the CPU",
            f"{on_cpu}, and pixels change slightly",
            {"quantize": eight_bits, "text_device": "cpu"},
        ),
        WeightForm(
            "one part at a time on the device",
            "each image moves every part to the device, and stages do not overlap",
            {"offload": "model"},
        ),
        WeightForm(
            "two blocks at a time on the device", "each step moves all weights to the device", {"offload": "layers"}
        ),
    )


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What a device holds: its bytes, those that its weights take, and the needs of the models on it."""

    capacity: float
    resident: float
    needs: Mapping[str, tuple[Row, Need]]

    def fault(self, order: Order) -> Fault | None:
        """Return a fault if this order cannot fit even alone."""
        row, one = self.needs[order.model]
        pixels = order.width * order.height
        if order.canvas is not None:
            pixels = min(pixels, MEGAPIXEL)
        count = len(order.references)
        if self._fits(row, one, (pixels, 1), count):
            return None
        side = next((side for side in range(4096, 0, -HINT_GRID) if self._fits(row, one, (side, side), count)), 0)
        shape = f"{order.width}×{order.height}" + (f" with {count} references" if count else "")
        hint = f"{side}×{side} fits" if side else "fewer references fit"
        taken = self.resident + RESERVE + one.working(row, (pixels, 1), count)
        why = f"needs {gigabytes(taken)} of memory, and the device has {gigabytes(self.capacity)}"
        return Fault("width" if side else "references", shape, why, hint)

    def _fits(self, row: Row, one: Need, size: Size, references: int) -> bool:
        return self.resident + RESERVE + one.working(row, size, references) <= self.capacity


def fit(
    weights: Weights, device: str, capacity: float, *, eight_bits: str = "int8"
) -> tuple[Weights, MemoryBudget | None, tuple[str, ...]]:
    """Return the weights in the first form that fits, what is left on the device, and lines that say so.

    A column that a row sets itself stays as it is. Raises `InvalidUsageError` if no form leaves room for a megapixel.
    """
    on_hub = [row.label() for row in weights.on(device) if row.hub]
    if on_hub:
        # Their files may not be here yet, so nothing is known of their size.
        return weights, None, (f"{device}: {', '.join(on_hub)} is on the Hub, so its memory is not planned.",)
    needs = {row.model: need(row, device) for row in weights.on(device)}
    least = 0.0
    for form in forms(eight_bits):
        if any(not _applies(form, row, needs[row.model]) for row in weights.on(device)):
            continue
        rows = [_formed(row, form) for row in weights.on(device)]
        if total([(row, needs[row.model]) for row in rows], LARGE_SIZE) > capacity:
            rows = [replace(row, tile=True) for row in rows]
        pairs = [(row, needs[row.model]) for row in rows]
        least = total(pairs, USUAL_SIZE)
        if least <= capacity:
            fitted = Weights({**weights.rows, **{row.model: row for row in rows}})
            resident = total(pairs, (0, 0)) - RESERVE - _text_step(pairs)
            budget = MemoryBudget(capacity, resident, {row.model: (row, needs[row.model]) for row in rows})
            return fitted, budget, _said(form, device, budget, tiled=any(row.tile for row in rows))
    names = ", ".join(row.label() for row in weights.on(device))
    why = f"is too little for {names}: even block by block an image of 1024×1024 needs {gigabytes(least)}"
    raise InvalidUsageError(
        "", faults=[Fault("--memory", gigabytes(capacity), why, "take a smaller model, or a GGUF file of this one")]
    )


def bytes_of(text: str) -> float:
    """Read an amount of memory such as 24G; raises `InvalidUsageError`."""
    number, unit = text.strip().upper().removesuffix("B"), 1.0
    if number and number[-1] in UNITS:
        number, unit = number[:-1], UNITS[number[-1]]
    try:
        found = float(number) * unit
    except ValueError:
        found = 0.0
    if not found >= UNITS["M"]:
        raise InvalidUsageError("", faults=[Fault("--memory", text, "must be an amount of memory", "such as 24G")])
    return found


def gigabytes(size: float) -> str:
    """Format an amount of memory."""
    return f"{size / GIGABYTE:.1f} GB"


def _applies(form: WeightForm, row: Row, one: Need) -> bool:
    """Whether a form changes nothing that the row sets itself, and nothing that is quantised already."""
    if form.columns.get("quantize") and one.transformer.stored is not None:
        return False
    if form.columns.get("offload") == "model" and row.kind.pipeline in MADE_OF_BLOCKS:
        return False
    return all(getattr(row, column) in (None, value) for column, value in form.columns.items())


def _formed(row: Row, form: WeightForm) -> Row:
    return replace(row, **form.columns)


def _text_step(pairs: Iterable[tuple[Row, Need]]) -> float:
    """Return what `total` counts for an image without pixels, which is the step over its text alone."""
    return max((one.working(row, (0, 0)) for row, one in pairs), default=0.0)


def _said(form: WeightForm, device: str, budget: MemoryBudget, *, tiled: bool) -> tuple[str, ...]:
    held = f"{device}: {form.words}, {gigabytes(budget.resident)} of {gigabytes(budget.capacity)}; cost: {form.cost}."
    tiles = f"{device}: images above a megapixel are decoded in tiles, whose seams may be visible."
    return (held, tiles) if tiled else (held,)
