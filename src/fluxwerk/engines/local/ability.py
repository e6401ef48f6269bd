"""What weights honour of a model's options, what they refuse, and what has no effect upon them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Order
from fluxwerk.engines.local.weights import Row, Weights
from fluxwerk.errors import Fault
from fluxwerk.imagefile import measure
from fluxwerk.types import Json

# Beyond this ratio of the sides diffusers refuses a reference.
LONGEST_RATIO = 8
NO_UPSAMPLING = "no model that rewrites prompts is loaded"
REFUSED = {
    "prompt_upsampling": NO_UPSAMPLING,
    "raw": "these weights have no raw mode",
    "image_prompt": "needs the Redux weights, which are not driven here",
    "person": "no open weights try garments on",
    "garment": "no open weights try garments on",
    "auto_crop": "the canvas is used as it is",
    "mode": "there is one way to render",
}
WITHOUT_EFFECT = {
    "safety_tolerance": "no safety checker is loaded, so nothing is ever moderated",
    "disable_pup": "no prompt is upsampled anyway",
    "image_prompt_strength": "there is no image prompt",
    "user": "is told to nobody",
}


class Ability:
    """The abilities of all rows together; knows no torch."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def faults(self, order: Order) -> Sequence[Fault]:
        """Name everything in the order that the weights could not honour."""
        row = self.weights.rows.get(order.model)
        if row is None:
            served = ", ".join(self.weights.rows)
            return [Fault("model", order.model, f"there are no weights for it here; served are {served}")]
        model = catalog.get_model(order.model)
        refused = self.refused(model, row)
        wrong = [
            Fault(name, value, refused[name], "GET /v1/models tells what is honoured")
            for name, value in order.options.items()
            if name in refused and value != model.options[name].default
        ]
        return wrong + _reference_faults(model, row, order)

    def facts(self, model: Model) -> Mapping[str, Json] | None:
        """Say what is honoured, refused and without effect, and whose weights these are."""
        row = self.weights.rows.get(model.name)
        if row is None:
            return None
        refused = {name: why for name, why in self.refused(model, row).items() if name in model.options}
        extra = model.reference_names()[row.kind.references :]
        refused |= dict.fromkeys(extra, f"these weights take {row.kind.references} images")
        idle = {name: why for name, why in WITHOUT_EFFECT.items() if name in model.options and name not in refused}
        return {
            "weights": row.label(),
            "pipeline": row.kind.pipeline,
            "licence": row.licence,
            "honoured": [name for name in model.options if name not in refused and name not in idle],
            "refused": refused,
            "without_effect": idle,
            "references": min(model.references, row.kind.references),
            "steps": steps(row, {}),
            "guidance": guidance(row, {}) if row.kind.guided else None,
            "prompt_tokens": row.kind.prompt_tokens,
        }

    def refused(self, model: Model, row: Row) -> dict[str, str]:
        """Say of each option that these weights refuse, why; a value equal to the model's default passes."""
        wrong = dict(REFUSED)
        if _has_fixed_steps(row):
            wrong["steps"] = f"these weights run {steps(row, {})} steps"
        if not row.kind.guided:
            wrong["guidance"] = "these weights are distilled and know no guidance"
        elif row.guidance is not None:
            wrong["guidance"] = f"guidance is set to {row.guidance} by the operator"
        return wrong if model.options else {}


def steps(row: Row, options: Mapping[str, Json]) -> int:
    """Say how many steps an order takes."""
    if _has_fixed_steps(row):
        return row.steps or row.kind.steps
    return int(options.get("steps") or row.kind.steps)


def guidance(row: Row, options: Mapping[str, Json]) -> float:
    """Say how strongly an order is guided."""
    if row.guidance is not None:
        return row.guidance
    given = options.get("guidance") if row.kind.guided else None
    return float(row.kind.guidance if given is None else given)


def _has_fixed_steps(row: Row) -> bool:
    return row.steps is not None or row.kind.fixed


def _reference_faults(model: Model, row: Row, order: Order) -> list[Fault]:
    if len(order.references) > row.kind.references:
        names = model.reference_names() or ("image_prompt",)
        name = names[min(row.kind.references, len(names) - 1)]
        why = REFUSED.get(name) or f"these weights take {row.kind.references} images"
        return [Fault(name, None, why, "GET /v1/models tells what is honoured")]
    faults: list[Fault] = []
    for name, data in zip(model.reference_names(), order.references, strict=False):
        raster = measure(data)
        if raster and max(raster.size) > LONGEST_RATIO * min(raster.size):
            shape = f"{raster.width}×{raster.height}"
            faults.append(Fault(name, shape, f"is {shape}; its sides may differ {LONGEST_RATIO} times at most"))
    return faults
