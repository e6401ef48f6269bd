"""What a transformer in one file needs beside it: text encoder, tokenizer and VAE, named or found nearby."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fluxwerk.engines.local.checkpoint import Checkpoint
from fluxwerk.engines.local.header import Header, read_header
from fluxwerk.engines.local.precision import unreadable
from fluxwerk.errors import Fault, InvalidUsageError

COLUMNS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae")
# Where ComfyUI keeps what is not a transformer.
COMFY_FOLDERS = ("text_encoders", "clip", "vae", "")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model")
# How the classes of tokenizers begin, by the word for their encoder; a class of no encoder here fits all.
TOKENIZER_CLASSES = {
    "Qwen": ("Qwen2",),
    "Mistral": ("Llama", "Pixtral", "Mistral"),
    "CLIP": ("CLIP",),
    "T5": ("T5",),
}
# How many layers of the text encoder are laid side by side.
STACKED_LAYERS = {"Flux2Transformer2DModel": 3, "Flux3Transformer2DModel": 8}
LATENT_CHANNELS = {"FluxTransformer2DModel": 16, "Flux2Transformer2DModel": 32, "Flux3Transformer2DModel": 32}
# The tensor whose second side is a text encoder's width, by the names of Qwen and Mistral, of T5 and of CLIP.
EMBEDDINGS = (
    "model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "shared.weight",
    "encoder.embed_tokens.weight",
    "text_model.embeddings.token_embedding.weight",
)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: the column that names it, what it is, the width that it must have, and where it usually lies."""

    column: str
    what: str
    width: int
    usual: str


def needed(checkpoint: Checkpoint) -> tuple[Part, ...]:
    """Return the parts that the transformer needs."""
    name, width = checkpoint.transformer, checkpoint.width
    channels = LATENT_CHANNELS[name]
    if name == "FluxTransformer2DModel":
        pooled = int(checkpoint.config["pooled_projection_dim"])
        home = "the folder {} of black-forest-labs/FLUX.1-dev"
        return (
            Part("text_encoder", "CLIP-L", pooled, _usual(home, "text_encoder", "clip_l.safetensors")),
            Part("text_encoder_2", "T5-XXL", width, _usual(home, "text_encoder_2", "t5xxl_fp16.safetensors")),
            Part("tokenizer", "CLIP's tokenizer", 0, home.format("tokenizer")),
            Part("tokenizer_2", "T5's tokenizer", 0, home.format("tokenizer_2")),
            Part("vae", "FLUX.1 VAE", channels, _usual(home, "vae", "ae.safetensors")),
        )
    one = width // STACKED_LAYERS[name]
    encoder, repository, file = ENCODERS.get((name, width), ("text encoder", "the model's own repository", "…"))
    home = f"the folder {{}} of {repository}"
    return (
        Part("text_encoder", encoder, one, _usual(home, "text_encoder", file)),
        Part("tokenizer", f"the tokenizer of {encoder}", 0, home.format("tokenizer")),
        Part("vae", "FLUX.2 VAE", channels, _usual(home, "vae", "flux2-vae.safetensors")),
    )


ENCODERS = {
    ("Flux2Transformer2DModel", 7680): ("Qwen3-4B", "black-forest-labs/FLUX.2-klein-4B", "qwen_3_4b.safetensors"),
    ("Flux2Transformer2DModel", 12288): ("Qwen3-8B", "black-forest-labs/FLUX.2-klein-9B", "qwen_3_8b.safetensors"),
    ("Flux2Transformer2DModel", 15360): ("Mistral Small 3.2", "black-forest-labs/FLUX.2-dev", "…"),
    ("Flux3Transformer2DModel", 20480): ("Qwen3-VL-4B", "black-forest-labs/flux-3-image-klein", "…"),
}


def _usual(home: str, folder: str, file: str) -> str:
    place = home.format(folder)
    if file == "…":
        return place
    return f"{place}, or ComfyUI's models/{'vae' if folder == 'vae' else 'text_encoders'}/{file}"


def find(checkpoint: Checkpoint, given: Mapping[str, Path]) -> tuple[dict[str, Path], list[Part]]:
    """Return the path of each part, named or found near the file, and the parts that are missing.

    Raises `InvalidUsageError` if a part that is named does not exist or does not fit.
    """
    found: dict[str, Path] = {}
    missing: list[Part] = []
    for part in needed(checkpoint):
        path = given.get(part.column)
        if path is not None:
            if why := unfit(part, path):
                raise InvalidUsageError("", faults=[Fault(part.column, path.name, why, f"usually {part.usual}")])
        else:
            path = next((near for near in _nearby(checkpoint.path, part.column) if unfit(part, near) is None), None)
        if path is None:
            missing.append(part)
        else:
            found[part.column] = path
    return found, missing


def unfit(part: Part, path: Path) -> str | None:
    """Return why a folder or file cannot be this part, or `None` if it can."""
    if part.column.startswith("tokenizer"):
        return _unfit_tokenizer(part, path)
    try:
        header: Header = {} if path.is_dir() else read_header(path)
        if part.what.startswith("Qwen3") and _sees(path, header) != ("VL" in part.what):
            return f"is not {part.what}: one reads images, the other does not"
        if refusal := unreadable(header):
            return refusal[0]
        width = _folder_width(part, path) if path.is_dir() else _file_width(part, header)
    except InvalidUsageError as fault:
        return fault.faults[0].allowed if fault.faults else str(fault)
    if width is None:
        return f"is not {part.what}"
    return None if width == part.width else f"is {width} wide, and {part.what} must be {part.width} wide"


def _unfit_tokenizer(part: Part, folder: Path) -> str | None:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return f"is not a folder with {' or '.join(TOKENIZER_FILES)}"
    named = str(_config(folder, "tokenizer_config.json").get("tokenizer_class"))
    mine = next((classes for word, classes in TOKENIZER_CLASSES.items() if word in part.what), ())
    others = [name for classes in TOKENIZER_CLASSES.values() for name in classes if name not in mine]
    return f"is a {named}, not {part.what}" if named.startswith(tuple(others)) else None


def _sees(path: Path, header: Header) -> bool:
    """Whether a text encoder can read images too."""
    return "vision_config" in _config(path) or any("visual." in name for name in header)


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    try:
        config: Any = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", config) if isinstance(config, dict) else {}


def _folder_width(part: Part, folder: Path) -> int | None:
    table = _config(folder)
    inner = cast("dict[str, Any]", table.get("text_config") or table)
    names = ("latent_channels",) if part.column == "vae" else ("hidden_size", "d_model")
    return next((int(inner[name]) for name in names if isinstance(inner.get(name), int)), None)


def _file_width(part: Part, header: Header) -> int | None:
    names = ("decoder.conv_in.weight",) if part.column == "vae" else EMBEDDINGS
    return next((header[name].shape[1] for name in names if name in header), None)


def _nearby(file: Path, column: str) -> Iterator[Path]:
    """Yield where a part usually lies near a file: folders of diffusers, then files as ComfyUI keeps them."""
    homes = list(dict.fromkeys([file.parent, file.parent.parent]))
    for home in homes:
        yield from _folders([home / column, *sorted(home.glob(f"*/{column}"))])
    if column.startswith("tokenizer"):
        return
    for home in homes:
        for name in COMFY_FOLDERS:
            yield from sorted(near for near in (home / name).glob("*.safetensors") if near != file)


def _folders(places: Iterable[Path]) -> Iterator[Path]:
    return (place for place in places if place.is_dir())
