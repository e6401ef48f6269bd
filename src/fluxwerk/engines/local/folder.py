"""Folders of weights as diffusers saves them: what one holds, and whether it is safe to open."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

from fluxwerk.engines.local.kind import KINDS, NON_COMMERCIAL, WIDTH_9B, Kind, recognise
from fluxwerk.errors import Fault, InvalidUsageError

# Files that can run code when they are opened.
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
LIBRARIES = ("diffusers", "transformers")
# Pipelines that diffusers makes of blocks have an index of their own.
INDICES = ("model_index.json", "modular_model_index.json")


def look(folder: Path, name: str, pipeline: str | None = None) -> tuple[Kind, str]:
    """Return the kind and the licence of a folder; raises `InvalidUsageError` if it could run code."""
    index = read_json(folder / INDICES[0]) or read_json(folder / INDICES[1])
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
    guided = read_json(folder / "transformer" / "config.json").get("guidance_embeds") is not False
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
    wide = read_json(folder / "transformer" / "config.json").get("joint_attention_dim") == WIDTH_9B
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


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or nothing if there is none."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
