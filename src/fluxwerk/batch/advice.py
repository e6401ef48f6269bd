"""Advice on the prompts of a manifest, by line; nothing is planned and nothing refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from fluxwerk import catalog
from fluxwerk.batch.expansion import Expansion, Values
from fluxwerk.batch.manifest import ManifestLine, read_manifest
from fluxwerk.catalog.rows import IMAGE_TYPES, Model
from fluxwerk.client.base import DEFAULT_MODEL
from fluxwerk.prompt import Advice, lint
from fluxwerk.types import Json


def advice_on(
    manifest: str | os.PathLike[str],
    *,
    model: str = DEFAULT_MODEL,
    variables: Iterable[Values] = (),
    encoding: str | None = None,
) -> Iterator[tuple[int, str, Advice]]:
    """Yield the line, the prompt and the advice for every prompt of a manifest; an equal prompt is judged once."""
    seen: set[tuple[str, str, int]] = set()
    for line in Expansion(variables, encoding).expand(read_manifest(manifest, encoding)):
        row = catalog.get_model(str(line.columns.get("model", model)))
        prompt, images = str(line.columns.get("prompt", "")), _images(row, line.columns)
        if prompt and (prompt, row.name, images) not in seen:
            seen.add((prompt, row.name, images))
            for advice in lint(prompt, row, images=images, options=_options(line)):
                yield line.number, prompt, advice


def _images(model: Model, columns: Mapping[str, Json]) -> int:
    listed = columns.get("images")
    texts = cast("list[Json]", listed) if isinstance(listed, list) else str(listed or "").split(";")
    many = sum(bool(text) for text in texts)
    named = (name for name in columns if name in model.options and model.options[name].type in IMAGE_TYPES)
    return many + sum(name != "images" for name in named)


def _options(line: ManifestLine) -> dict[str, Json]:
    """Read the switches of upsampling, which a table writes as text."""
    switches = {
        name: str(line.columns[name]).lower() for name in ("prompt_upsampling", "disable_pup") if name in line.columns
    }
    return {name: value in ("true", "yes", "1") for name, value in switches.items()}
