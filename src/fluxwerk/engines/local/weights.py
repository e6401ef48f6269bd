"""Which weights serve which model, read from `weights.toml`, from folders of weights or from one file."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model
from fluxwerk.engines.local import parts
from fluxwerk.engines.local.checkpoint import Checkpoint, recognise_file
from fluxwerk.engines.local.folder import INDICES, PICKLES, look, read_json
from fluxwerk.engines.local.header import SUFFIXES
from fluxwerk.engines.local.kind import APACHE, KINDS, NON_COMMERCIAL, WIDTH_9B, Kind, recognise
from fluxwerk.engines.local.row import Lora, Row, Weights
from fluxwerk.errors import Fault, InvalidUsageError, UnknownModelError

DTYPES = ("bfloat16", "float16", "float32")
CHOICES = {
    "dtype": DTYPES,
    "quantize": ("fp8", "int8"),
    "quantize_text": ("int8",),
    "text_device": ("cpu",),
    "offload": ("model", "layers"),
    "tile": (True, False),
}
# These come in two sizes under two licences.
KLEINS = ("klein", "klein-base")
TEXTS = ("upsampler", "device", "licence", "pipeline", *parts.COLUMNS)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read(where: str) -> Weights:
    """Read `weights.toml`, a folder of weights, a folder of such folders, or one file with its parts beside it.

    Raises `InvalidUsageError` with every fault found.
    """
    place = Path(where).expanduser()
    if place.suffix in SUFFIXES:
        return _file(place)
    if place.is_file():
        return _table(place)
    if (place / "weights.toml").is_file():
        return _table(place / "weights.toml")
    folders = [place] if any((place / index).is_file() for index in INDICES) else _folders(place)
    if not folders:
        hint = "a folder with a model_index.json, a folder of such folders, or a weights.toml"
        raise InvalidUsageError("", faults=[Fault("--weights", where, "contains no weights", f"give {hint}")])
    rows: dict[str, Row] = {}
    for folder in folders:
        kind, licence = look(folder, "")
        for model in _names(folder, kind):
            if model in rows:
                one = f"{Path(rows[model].path).name} and {folder.name} both serve {model}"
                raise InvalidUsageError("", faults=[Fault("--weights", where, one, "choose one in a weights.toml")])
            rows[model] = _fitting(Row(model, str(folder), kind, licence=licence))
    return Weights(rows)


def _file(file: Path) -> Weights:
    """Return the rows of one file, whose parts must lie near it."""
    checkpoint = recognise_file(file)
    path, found = str(file.resolve()), complete(checkpoint, {})
    licence = licence_of(checkpoint)
    rows = [Row(model, path, checkpoint.kind, parts=found, licence=licence) for model in models_of(checkpoint)]
    return Weights({row.model: _fitting(row) for row in rows})


def models_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the models that a file serves by default."""
    return _by_width(checkpoint.kind, checkpoint.width)


def licence_of(checkpoint: Checkpoint) -> str:
    """Return the licence of such weights; a file states none."""
    return NON_COMMERCIAL if checkpoint.width == WIDTH_9B else checkpoint.kind.licence


def complete(checkpoint: Checkpoint, given: Mapping[str, Path]) -> tuple[tuple[str, str], ...]:
    """Return the paths of all parts; raises `InvalidUsageError` with one fault for each that is missing."""
    found, missing = parts.find(checkpoint, given)
    if missing:
        faults = [
            Fault(part.column, None, f"is missing: {checkpoint.path.name} needs {part.what}", f"usually {part.usual}")
            for part in missing
        ]
        raise InvalidUsageError("", faults=faults)
    return tuple((column, str(path.resolve())) for column, path in found.items())


def _by_width(kind: Kind, width: object) -> tuple[str, ...]:
    return ("flux-2-klein-9b",) if kind.name in KLEINS and width == WIDTH_9B else kind.models


def _folders(place: Path) -> list[Path]:
    return sorted({path.parent for index in INDICES for path in place.glob(f"*/{index}")})


def _names(folder: Path, kind: Kind) -> tuple[str, ...]:
    """Return the models of a folder; klein 9B and 4B differ only in their width."""
    return _by_width(kind, read_json(folder / "transformer" / "config.json").get("joint_attention_dim"))


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
    place = (home / Path(table["path"]).expanduser()).resolve()
    hub = not place.exists() and HUB_ID.fullmatch(table["path"]) is not None
    pipeline = table.get("pipeline")
    found: tuple[tuple[str, str], ...] = ()
    if place.suffix in SUFFIXES:
        checkpoint = recognise_file(place, pipeline)
        given = {key: (home / Path(table[key]).expanduser()).resolve() for key in parts.COLUMNS if key in table}
        kind, licence, found = checkpoint.kind, licence_of(checkpoint), complete(checkpoint, given)
    elif strange := [key for key in parts.COLUMNS if key in table]:
        why = "is for a path that is one file; a folder holds all parts"
        raise InvalidUsageError("weights.toml:", faults=[Fault(f"{name}.{strange[0]}", table[strange[0]], why)])
    else:
        kind, licence = _on_hub(name, table) if hub else look(place, f"{name}.path", pipeline)
    if "guidance" in table and not kind.guided:
        why = "these weights are distilled and take no guidance"
        raise InvalidUsageError("weights.toml:", faults=[Fault(f"{name}.guidance", table["guidance"], why)])
    if "cache" in table and kind.fixed:
        why = "these weights are distilled for a few large steps, of which none can be left out"
        raise InvalidUsageError("weights.toml:", faults=[Fault(f"{name}.cache", table["cache"], why)])
    if "upsampler" in table:
        table = {**table, "upsampler": _upsampler(name, table["upsampler"], home)}
    kept = {"path", "pipeline", "loras", "licence", *parts.COLUMNS}
    given_columns = {key: value for key, value in table.items() if key not in kept}
    loras = tuple(_lora(name, entry, home) for entry in table.get("loras", ()))
    path, licence = table["path"] if hub else str(place), table.get("licence", licence)
    row = Row(_model(name).name, path, kind, hub=hub, parts=found, loras=loras, licence=licence, **given_columns)
    return _fitting(row)


def _upsampler(name: str, given: str, home: Path) -> str:
    folder = (home / Path(given).expanduser()).resolve()
    if not (folder / "config.json").is_file() or any(file.suffix in PICKLES for file in folder.iterdir()):
        why = "must be a folder with a config.json and safetensors"
        raise InvalidUsageError("weights.toml:", faults=[Fault(f"{name}.upsampler", given, why)])
    return str(folder)


def _wrong_columns(name: str, table: Mapping[str, Any]) -> list[Fault]:
    known = {column.name for column in fields(Row)} - {"model", "kind", "hub", "parts", "lora_folder"} | {
        "pipeline",
        *parts.COLUMNS,
    }
    wrong: dict[str, str] = {}
    for key, value in table.items():
        if key in CHOICES and value not in CHOICES[key]:
            wrong[key] = f"must be one of {', '.join(str(choice).lower() for choice in CHOICES[key])}"
        elif key in TEXTS and not (isinstance(value, str) and value):
            wrong[key] = "must be a text"
        elif key == "cache" and not (type(value) is float and 0 < value < 1):
            wrong[key] = "must be a number between 0 and 1"
        elif key == "steps" and not (type(value) is int and value > 0):
            wrong[key] = "must be a whole number of at least 1"
        elif key == "guidance" and not _is_strength(value):
            wrong[key] = "must be a number of at least 0"
        elif key == "loras" and not isinstance(value, list):
            wrong[key] = "must be a list"
    if not isinstance(table.get("path"), str):
        wrong["path"] = "must be a folder, a file or a name on the Hub"
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
    tuned = model.family == "flux-2-lora" and row.kind.pipeline.startswith("Flux2Klein")
    special = (
        not tuned
        and model.family in ("flux-tools", "flux-3", "flux-2-lora")
        and model.name
        not in (
            "flux-tools-outpainting",
            "flux-tools-erase",
            "flux-3-image-klein",
        )
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
