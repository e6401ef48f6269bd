"""Which of a model's options the weights honour, which they refuse, and which have no effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Order
from fluxwerk.engines.local.plan import MemoryBudget
from fluxwerk.engines.local.row import Row, Weights
from fluxwerk.errors import Fault
from fluxwerk.imagefile import measure
from fluxwerk.types import Json

# diffusers refuses a reference whose sides differ by more than this ratio.
LONGEST_RATIO = 8
# The field by which a request chooses LoRAs; the live service does not have it.
EXTENSION = "lora"
MOST_LORAS = 4
LARGEST_STRENGTH = 4
REFUSED = {
    "prompt_upsampling": "no model that rewrites prompts is loaded",
    "raw": "these weights have no raw mode",
    "image_prompt": "needs the Redux weights, which this engine does not support",
    "person": "open weights for virtual try-on do not exist",
    "garment": "open weights for virtual try-on do not exist",
    "auto_crop": "the canvas is not cropped",
    "mode": "there is only one mode",
}
WITHOUT_EFFECT = {
    "safety_tolerance": "no safety checker is loaded, so no image is moderated",
    "disable_pup": "prompts are not upsampled",
    "image_prompt_strength": "image prompts are not supported",
    "user": "is not used",
}


class Ability:
    """The abilities of all rows; it does not load torch."""

    def __init__(self, weights: Weights, budgets: Sequence[MemoryBudget] = ()) -> None:
        self.weights = weights
        self.budgets = budgets

    def faults(self, order: Order) -> Sequence[Fault]:
        """Return a fault for each field of the order that the weights cannot honour."""
        row = self.weights.rows.get(order.model)
        if row is None:
            served = ", ".join(self.weights.rows)
            return [Fault("model", order.model, f"this server has no weights for it; it serves {served}")]
        model = catalog.get_model(order.model)
        refused = self.refused(model, row)
        wrong = [
            Fault(name, value, refused[name], "GET /v1/models lists what is honoured")
            for name, value in order.options.items()
            if name in refused and value != model.options[name].default
        ]
        wrong += _upsampling_faults(row, order)
        wrong += _lora_faults(model, row, order)
        return wrong + (_reference_faults(model, row, order) or self.memory_faults(order))

    def memory_faults(self, order: Order) -> list[Fault]:
        """Return a fault if the order fits on none of the devices that have its weights."""
        faults = [budget.fault(order) for budget in self.budgets if order.model in budget.needs]
        return [] if None in faults else [fault for fault in faults if fault is not None][:1]

    def facts(self, model: Model) -> Mapping[str, Json] | None:
        """Return what is honoured, refused and without effect, and which weights these are."""
        row = self.weights.rows.get(model.name)
        if row is None:
            return None
        refused = {name: why for name, why in self.refused(model, row).items() if name in model.options}
        extra = model.reference_names()[row.kind.references :]
        refused |= dict.fromkeys(extra, f"these weights take {row.kind.references} images")
        without_effect = {
            name: why for name, why in WITHOUT_EFFECT.items() if name in model.options and name not in refused
        }
        return {
            "weights": row.label(),
            "pipeline": row.kind.pipeline,
            "licence": row.licence,
            "honoured": [name for name in model.options if name not in refused and name not in without_effect],
            "refused": refused,
            "without_effect": without_effect,
            "references": min(model.references, row.kind.references),
            "steps": steps(row, {}),
            "guidance": guidance(row, {}) if row.kind.guided else None,
            "prompt_tokens": row.kind.prompt_tokens,
            "loras": list(_names(row)),
            "extensions": _extensions(model, row),
        }

    def refused(self, model: Model, row: Row) -> dict[str, str]:
        """Return each refused option with the reason; a value equal to the model's default is accepted all the same."""
        wrong = dict(REFUSED)
        if row.upsampler is not None:
            del wrong["prompt_upsampling"]
        if _has_fixed_steps(row):
            wrong["steps"] = f"these weights run {steps(row, {})} steps"
        if not row.kind.guided:
            wrong["guidance"] = "these weights are distilled and take no guidance"
        elif row.guidance is not None:
            wrong["guidance"] = f"guidance is set to {row.guidance} by the operator"
        return wrong if model.options else {}


def loras(order: Order) -> tuple[tuple[str, float], ...]:
    """Return the LoRAs of an order with their strengths: its `lora`, or the one of a `-finetuned` path."""
    named: Any = order.options.get("finetune_id")
    if named:
        strength: Any = order.options.get("finetune_strength")
        return ((str(named), 1.0 if strength is None else float(strength)),)
    entries: Any = order.options.get(EXTENSION) or ()
    return tuple((str(entry["name"]), float(entry.get("strength", 1.0))) for entry in entries)


def steps(row: Row, options: Mapping[str, Json]) -> int:
    """Return the number of steps of an order."""
    if _has_fixed_steps(row):
        return row.steps or row.kind.steps
    return int(options.get("steps") or row.kind.steps)


def guidance(row: Row, options: Mapping[str, Json]) -> float:
    """Return how strongly the prompt guides an order."""
    if row.guidance is not None:
        return row.guidance
    given = options.get("guidance") if row.kind.guided else None
    return float(row.kind.guidance if given is None else given)


def _has_fixed_steps(row: Row) -> bool:
    return row.steps is not None or row.kind.fixed


def _extensions(model: Model, row: Row) -> list[Json]:
    """Return the fields that a request may have beyond those of the live service."""
    found: list[Json] = []
    if row.lora_folder and "finetune_id" not in model.options:
        found.append(EXTENSION)
    if row.upsampler and "prompt_upsampling" not in model.options:
        found.append("prompt_upsampling")
    return found


def _upsampling_faults(row: Row, order: Order) -> list[Fault]:
    given = order.options.get("prompt_upsampling")
    if row.upsampler is None or not given:
        return []
    if given is not True:
        return [Fault("prompt_upsampling", given, "must be true or false", "send true")]
    if (order.references and not row.upsampler_sees()) or order.canvas:
        why = "is for prompts alone, because the model that writes them out sees no images"
        return [Fault("prompt_upsampling", True, why, "leave it out")]
    return []


def _names(row: Row) -> tuple[str, ...]:
    """Return the LoRAs that requests may choose: the files of the folder at this moment."""
    if row.lora_folder is None:
        return ()
    return tuple(sorted(file.stem for file in Path(row.lora_folder).glob("*.safetensors")))


def _lora_faults(model: Model, row: Row, order: Order) -> list[Fault]:
    given: Any = order.options.get(EXTENSION)
    if "finetune_id" in model.options:
        if row.lora_folder is None:
            return [Fault("finetune_id", None, "this server has no folder of LoRAs", "start it with --loras")]
    elif given is None:
        return []
    elif not _are_loras(given):
        hint = '[{"name": "style", "strength": 0.8}], at most four, with strengths from -4 to 4'
        return [Fault(EXTENSION, None, "is not a list of LoRAs", f"send {hint}")]
    known = _names(row)
    choice = f"one of {', '.join(known)}" if known else "its folder is empty"
    field = "finetune_id" if "finetune_id" in model.options else EXTENSION
    if field == "finetune_id" and not order.options.get(field):
        return [Fault(field, None, "is missing", choice)]
    return [Fault(field, name, "is no LoRA of this server", choice) for name, _ in loras(order) if name not in known]


def _are_loras(given: Any) -> bool:
    if not isinstance(given, list) or len(cast("list[Any]", given)) > MOST_LORAS:
        return False
    entries = cast("list[Any]", given)
    if not all(isinstance(entry, dict) for entry in entries):
        return False
    tables = cast("list[dict[str, Any]]", entries)
    names = [table.get("name") for table in tables]
    return (
        all(set(table) <= {"name", "strength"} for table in tables)
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names)
        and all(_is_strength(table.get("strength", 1.0)) for table in tables)
    )


def _is_strength(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST_STRENGTH <= value <= LARGEST_STRENGTH


def _reference_faults(model: Model, row: Row, order: Order) -> list[Fault]:
    if len(order.references) > row.kind.references:
        names = model.reference_names() or ("image_prompt",)
        name = names[min(row.kind.references, len(names) - 1)]
        why = REFUSED.get(name) or f"these weights take {row.kind.references} images"
        return [Fault(name, None, why, "GET /v1/models lists what is honoured")]
    faults: list[Fault] = []
    for name, data in zip(model.reference_names(), order.references, strict=False):
        raster = measure(data)
        if raster and max(raster.size) > LONGEST_RATIO * min(raster.size):
            shape = f"{raster.width}×{raster.height}"
            faults.append(Fault(name, shape, f"is {shape}; one side may be at most {LONGEST_RATIO} times the other"))
    return faults
