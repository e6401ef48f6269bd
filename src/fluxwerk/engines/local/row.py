"""One model and the weights that serve it: a row of `weights.toml`, and all rows together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fluxwerk.engines.local.folder import read_json
from fluxwerk.engines.local.kind import Kind


@dataclass(frozen=True, slots=True)
class Lora:
    """One LoRA file in safetensors, which is fused into the weights with this scale when they are loaded."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """One model and the weights that serve it; `None` means the default of the device or the kind.

    `path` is a folder, a file, or a name on the Hugging Face Hub if `hub`; `parts` are the paths of what a file does
    not hold, by their columns. `quantize` is the form of the transformer and `quantize_text` that of the text encoder,
    which runs on `text_device`; `tile` decodes large images in tiles. Requests choose LoRAs of `lora_folder`;
    `cache` is the change of a step below which the next one is left out, `upsampler` the folder of a model that writes
    prompts out. `steps` and `guidance` hold for every request.
    """

    model: str
    path: str
    kind: Kind
    hub: bool = False
    parts: tuple[tuple[str, str], ...] = ()
    dtype: str | None = None
    device: str | None = None
    quantize: str | None = None
    quantize_text: str | None = None
    text_device: str | None = None
    offload: str | None = None
    tile: bool = False
    loras: tuple[Lora, ...] = ()
    lora_folder: str | None = None
    cache: float | None = None
    upsampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    licence: str = ""

    def label(self) -> str:
        """Return the name of the weights without the path of their folder."""
        return self.path if self.hub else Path(self.path).name

    def place(self) -> tuple[object, ...]:
        """Return what rows must have in common to share one copy in memory."""
        forms = self.dtype, self.quantize, self.quantize_text, self.text_device, self.offload, self.tile
        return self.path, self.kind.pipeline, self.parts, forms, self.loras, self.lora_folder

    def upsampler_sees(self) -> bool:
        """Whether the upsampler gets the references too, as FLUX.3's own does."""
        if self.upsampler is None or not self.kind.pipeline.startswith("Flux3"):
            return False
        return "vision_config" in read_json(Path(self.upsampler) / "config.json")

    def is_file(self) -> bool:
        """Whether one file holds the transformer, and other files or folders the rest."""
        return bool(self.parts)


@dataclass(frozen=True, slots=True)
class Weights:
    """All rows, by the catalogue name of their model."""

    rows: Mapping[str, Row] = field(default_factory=dict[str, Row])

    def on(self, device: str) -> tuple[Row, ...]:
        """Return the rows that a device loads."""
        return tuple(row for row in self.rows.values() if row.device in (None, device))

    def with_loras(self, folder: str | None) -> Weights:
        """Return the same rows, whose requests may choose LoRAs of a folder."""
        return Weights({name: replace(row, lora_folder=folder) for name, row in self.rows.items()})

    def quantized(self, how: str | None) -> Weights:
        """Return the same rows, quantised by `how` unless a row has its own setting."""
        rows = {name: replace(row, quantize=row.quantize or how) for name, row in self.rows.items()}
        return Weights(rows)
