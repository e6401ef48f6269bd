"""Which weights serve which model, read from `weights.toml` or from folders of weights."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model
from fluxwerk.engines.local.kind import APACHE, KINDS, NON_COMMERCIAL, WIDTH_9B, Kind, recognise
from fluxwerk.errors import Fault, InvalidUsageError, UnknownModelError

DTYPES = ("bfloat16", "float16", "float32")
CHOICES = {"dtype": DTYPES, "quantize": ("fp8",), "offload": ("model",)}
# These come in two sizes under two licences.
KLEINS = ("klein", "klein-base")
TEXTS = ("device", "licence", "pipeline")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Files that can run code when they are opened.
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class Lora:
    """One LoRA file in safetensors, which is fused into the weights with this scale when they are loaded."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """One model and the weights that serve it; `None` means the default of the device or the kind.

    `path` is a folder, or a name on the Hugging Face Hub if `hub`. `steps` and `guidance` hold for every request.
    """

    model: str
    path: str
    kind: Kind
    hub: bool = False
    dtype: str | None = None
    device: str | None = None
    quantize: str | None = None
    offload: str | None = None
    loras: tuple[Lora, ...] = ()
    steps: int | None = None
    guidance: float | None = None
    licence: str = ""

    def label(self) -> str:
        """Return the name of the weights without the path of their folder."""
        return self.path if self.hub else Path(self.path).name

    def place(self) -> tuple[object, ...]:
        """Return what rows must have in common to share one copy in memory."""
        return self.path, self.kind.pipeline, self.dtype, self.quantize, self.offload, self.loras


@dataclass(frozen=True, slots=True)
class Weights:
    """All rows, by the catalogue name of their model."""

    rows: Mapping[str, Row] = field(default_factory=dict[str, Row])

    def on(self, device: str) -> tuple[Row, ...]:
        """Return the rows that a device loads."""
        return tuple(row for row in self.rows.values() if row.device in (None, device))

    def quantized(self, how: str | None) -> Weights:
        """Return the same rows, quantised by `how` unless a row has its own setting."""
        rows = {name: replace(row, quantize=row.quantize or how) for name, row in self.rows.items()}
        return Weights(rows)


def read(where: str) -> Weights:
    """Read `weights.toml`, a folder of weights, or a folder of such folders.

    Raises `InvalidUsageError` with every fault found.
    """
    place = Path(where).expanduser()
    if place.is_file():
        return _table(place)
    if (place / "weights.toml").is_file():
        return _table(place / "weights.toml")
    folders = [place] if (place / "model_index.json").is_file() else _folders(place)
    if not folders:
        hint = "a folder with a model_index.json, a folder of such folders, or a weights.toml"
        raise InvalidUsageError("", faults=[Fault("--weights", where, "contains no weights", f"give {hint}")])
    rows: dict[str, Row] = {}
    for folder in folders:
        kind, licence = _look(folder, "")
        for model in _names(folder, kind):
            if model in rows:
                one = f"{Path(rows[model].path).name} and {folder.name} both serve {model}"
                raise InvalidUsageError("", faults=[Fault("--weights", where, one, "choose one in a weights.toml")])
            rows[model] = _fitting(Row(model, str(folder), kind, licence=licence))
    return Weights(rows)


def _folders(place: Path) -> list[Path]:
    return sorted(path.parent for path in place.glob("*/model_index.json"))


def _names(folder: Path, kind: Kind) -> tuple[str, ...]:
    """Return the models of a folder; klein 9B and 4B differ only in their width."""
    wide = _json(folder / "transformer" / "config.json").get("joint_attention_dim") == WIDTH_9B
    return ("flux-2-klein-9b",) if kind.name in KLEINS and wide else kind.models


def _table(file: Path) -> Weights:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise InvalidUsageError("", faults=[Fault("--weights", file.name, f"is not valid TOML: {fault}")]) from None
    tables: Any = data.get("weights", {})
    if not isinstance(tables, dict):
        raise InvalidUsageError(
            f"{file.name}:", faults=[Fault("weights", tables, "must be a table", "write [weights.MODEL]")]
        )
    strange = [
        Fault(name, None, "is not a table of this file", "write [weights.MODEL]") for name in data if name != "weights"
    ]
    if strange or not tables:
        empty = Fault("weights", None, "names no model", "write [weights.flux-2-klein-4b] with path = ...")
        raise InvalidUsageError(f"{file.name}:", faults=strange or [empty])
    rows: dict[str, Row] = {}
    for name, table in cast("dict[str, Any]", tables).items():
        row = _row(name, table, file.parent)
        if row.model in rows:
            raise InvalidUsageError(f"{file.name}:", faults=[Fault(name, None, f"{row.model} is configured twice")])
        rows[row.model] = row
    return Weights(rows)


def _row(name: str, table: Any, home: Path) -> Row:
    if not isinstance(table, dict):
        raise InvalidUsageError("weights.toml:", faults=[Fault(name, table, "must be a table", f"[weights.{name}]")])
    table = cast("dict[str, Any]", table)
    if faults := _wrong_columns(name, table):
        raise InvalidUsageError("weights.toml:", faults=faults)
    folder = (home / Path(table["path"]).expanduser()).resolve()
    hub = not folder.is_dir() and HUB_ID.fullmatch(table["path"]) is not None
    kind, licence = _on_hub(name, table) if hub else _look(folder, f"{name}.path", table.get("pipeline"))
    if "guidance" in table and not kind.guided:
        why = "these weights are distilled and take no guidance"
        raise InvalidUsageError("weights.toml:", faults=[Fault(f"{name}.guidance", table["guidance"], why)])
    given = {key: value for key, value in table.items() if key not in ("path", "pipeline", "loras", "licence")}
    loras = tuple(_lora(name, entry, home) for entry in table.get("loras", ()))
    path, licence = table["path"] if hub else str(folder), table.get("licence", licence)
    return _fitting(Row(_model(name).name, path, kind, hub=hub, loras=loras, licence=licence, **given))


def _wrong_columns(name: str, table: Mapping[str, Any]) -> list[Fault]:
    known = {column.name for column in fields(Row)} - {"model", "kind", "hub"} | {"pipeline"}
    wrong: dict[str, str] = {}
    for key, value in table.items():
        if key in CHOICES and value not in CHOICES[key]:
            wrong[key] = f"must be one of {', '.join(CHOICES[key])}"
        elif key in TEXTS and not (isinstance(value, str) and value):
            wrong[key] = "must be a text"
        elif key == "steps" and not (type(value) is int and value > 0):
            wrong[key] = "must be a whole number of at least 1"
        elif key == "guidance" and not _is_strength(value):
            wrong[key] = "must be a number of at least 0"
        elif key == "loras" and not isinstance(value, list):
            wrong[key] = "must be a list"
    if not isinstance(table.get("path"), str):
        wrong["path"] = "must be a folder or a name on the Hub"
    faults = [
        Fault(f"{name}.{key}", None, "is not a column", f"columns: {', '.join(sorted(known))}")
        for key in set(table) - known
    ]
    return faults + [Fault(f"{name}.{key}", table.get(key), why) for key, why in wrong.items()]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_strength(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _model(name: str) -> Model:
    try:
        return catalog.get_model(name)
    except UnknownModelError as unknown:
        raise InvalidUsageError("weights.toml:", faults=[Fault(name, None, str(unknown))]) from None


def _fitting(row: Row) -> Row:
    """Return the row; raises `InvalidUsageError` if its weights cannot do what the model does."""
    model = catalog.get_model(row.model)
    canvas = model.output in ("source", "margins", "canvas")
    special = model.family in ("flux-tools", "flux-3", "flux-2-lora") and model.name not in (
        "flux-tools-outpainting",
        "flux-tools-erase",
    )
    if special or not (row.kind.fills if canvas else row.kind.generates):
        able = [kind.pipeline for kind in KINDS.values() if (kind.fills if canvas else kind.generates)]
        hint = (
            "open weights for this model do not exist"
            if special
            else f"it needs one of {', '.join(dict.fromkeys(able))}"
        )
        raise InvalidUsageError(
            "", faults=[Fault(row.model, row.label(), f"{row.kind.pipeline} cannot serve it", hint)]
        )
    return row


def _lora(name: str, entry: Any, home: Path) -> Lora:
    table = cast("dict[str, Any]", {"path": entry} if isinstance(entry, str) else entry)
    table = table if isinstance(entry, str | dict) else {}
    scale: Any = table.get("scale", 1.0)
    if not _is_number(scale) or not isinstance(table.get("path"), str) or set(table) - {"path", "scale"}:
        hint = '"style.safetensors", or { path = "style.safetensors", scale = 0.8 }'
        raise InvalidUsageError("weights.toml:", faults=[Fault(f"{name}.loras", entry, "is not a LoRA", hint)])
    file = (home / Path(table["path"]).expanduser()).resolve()
    if not file.is_file() or file.suffix != ".safetensors":
        raise InvalidUsageError(
            "", faults=[Fault(f"{name}.loras", table["path"], "must be a .safetensors file that exists")]
        )
    return Lora(str(file), float(scale))


def _on_hub(name: str, table: Mapping[str, Any]) -> tuple[Kind, str]:
    kind = KINDS.get(table.get("pipeline", "")) or recognise(table.get("pipeline", ""))
    if kind is None:
        hint = f"one of {', '.join(KINDS)}"
        why = f"{table['path']} is not a folder; a name on the Hub needs a pipeline"
        raise InvalidUsageError("weights.toml:", faults=[Fault(f"{name}.pipeline", table.get("pipeline"), why, hint)])
    return kind, kind.licence if kind.name not in KLEINS else _licence_by_size(table["path"].lower())


def _licence_by_size(name: str) -> str:
    """Return the licence of a klein on the Hub by its name, because its files are not there yet."""
    return APACHE if "4b" in name else NON_COMMERCIAL if "9b" in name else ""


def _look(folder: Path, name: str, pipeline: str | None = None) -> tuple[Kind, str]:
    """Return the kind and the licence of a folder; raises `InvalidUsageError` if it could run code."""
    index = _json(folder / "model_index.json")
    where = name or "--weights"
    if not index:
        raise InvalidUsageError("", faults=[Fault(where, str(folder), "is not a folder with a model_index.json")])
    lists = {key: cast("list[Any]", value) for key, value in index.items() if isinstance(value, list)}
    foreign = sorted(key for key, value in lists.items() if not _is_known(value[:1]))
    pickled = sorted(path.name for path in folder.rglob("*") if path.suffix in PICKLES)
    if foreign or pickled:
        why = f"contains its own code ({', '.join(foreign)})" if foreign else f"contains pickles ({pickled[0]})"
        raise InvalidUsageError(
            "",
            faults=[Fault(where, folder.name, why, "only safetensors and plain diffusers are loaded")],
        )
    guided = _json(folder / "transformer" / "config.json").get("guidance_embeds") is not False
    distilled = index.get("is_distilled") is not False
    kind = recognise(str(index.get("_class_name")), distilled=distilled, guided=guided)
    if kind is None:
        known = ", ".join(dict.fromkeys(kind.pipeline for kind in KINDS.values()))
        raise InvalidUsageError(
            "", faults=[Fault(where, index.get("_class_name"), "is not supported", f"pipelines: {known}")]
        )
    if pipeline is not None:
        held, kind = kind.pipeline, KINDS.get(pipeline) or recognise(pipeline) or kind
        if pipeline not in (kind.name, kind.pipeline) or kind.pipeline != held:
            raise InvalidUsageError(
                "", faults=[Fault(where, pipeline, f"does not match {folder.name}, which contains a {held}")]
            )
    wide = _json(folder / "transformer" / "config.json").get("joint_attention_dim") == WIDTH_9B
    return kind, _licence(folder) or (NON_COMMERCIAL if wide else kind.licence)


def _is_known(library: list[Any]) -> bool:
    return library in ([None], *([known] for known in LIBRARIES))


def _licence(folder: Path) -> str:
    """Return the licence that the head of the model card states."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = text.split("---")[1] if text.startswith("---") else ""
    stated = dict(re.findall(r"^(license|license_name):\s*(\S+)\s*$", head, re.MULTILINE))
    name = stated.get("license_name") or stated.get("license", "")
    return "Apache-2.0" if name.lower() == "apache-2.0" else name


def _json(file: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
