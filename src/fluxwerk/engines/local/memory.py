"""How much memory weights take on a device, computed from the headers of their files; no weights are loaded.

Sizes of weights are exact but for the encoder's layers that are dropped after loading.  What a step and a decoding
take beside them is estimated, with coefficients that `bench/memory.py` measures on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fluxwerk.catalog.sizes import Size
from fluxwerk.engines.local.checkpoint import Checkpoint, recognise_file, transformer_of
from fluxwerk.engines.local.header import Header, read_folder, read_header
from fluxwerk.engines.local.instructions import most_tokens
from fluxwerk.engines.local.row import Row

GIGABYTE = 10**9
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
# Bytes of a step for each token and each unit of the width, and of a decoding for each pixel, in two-byte numbers.
STEP_BYTES = 44.0
DECODE_BYTES = 1540.0
# Context, kernels and what the allocator cannot use.
RESERVE = 1.0 * GIGABYTE
# A tile of the VAE, in pixels of a side.
TILE = 1024
# FLUX.3 reads prompts of up to 8,192 tokens, and few that people write have more than this.
LONG_PROMPT = 1024
PIXELS_PER_TOKEN = 16 * 16
# Offloading layer by layer holds one block while the next arrives.
HELD_BLOCKS = 2
# diffusers casts no matrix of a norm, which those of the modulation are in FLUX.1, and not the last one.
KEPT = re.compile(r"norm|_mod\.lin|single_blocks\.\d+\.modulation|adaLN|^proj_out\.|^final_layer\.")
BLOCK = re.compile(r"(?:blocks|layers|block|layer)\.(?:image\.|image_cond\.)?(\d+)\.")


@dataclass(frozen=True, slots=True)
class Amount:
    """The values of one part: in matrices, which can be quantised, and others.

    `kept` are those in matrices that fp8 for storage leaves as they are; `stored` is the size of what is quantised on
    disk and stays so.
    """

    matrices: int = 0
    others: int = 0
    kept: int = 0
    stored: int | None = None
    blocks: int = 1

    def size(self, quantize: str | None, width: int) -> float:
        """Return the bytes in memory, with matrices of one byte if quantised."""
        if self.stored is not None:
            return self.stored
        if quantize is None:
            return (self.matrices + self.others) * width
        kept = self.kept if quantize == "fp8" else 0
        return self.matrices - kept + (self.others + kept) * width


@dataclass(frozen=True, slots=True)
class Need:
    """What one row takes: its parts, the bytes of a number, and the width of its transformer."""

    transformer: Amount
    text: Amount
    vae: Amount
    number: int
    width: int
    upsampler: Amount = Amount()

    def resident(self, row: Row) -> float:
        """Return the bytes that stay on the device."""
        text = 0.0 if row.text_device == "cpu" else self.text.size(row.quantize_text, self.number)
        transformer, vae = self.transformer.size(row.quantize, self.number), self.vae.size(None, self.number)
        if row.text_device != "cpu":
            vae += self.upsampler.size(None, self.number)
        if row.offload == "model":
            return max(text, transformer, vae)
        if row.offload == "layers":
            held = HELD_BLOCKS * max(transformer / self.transformer.blocks, text / self.text.blocks)
            return held + vae
        return text + transformer + vae

    def working(self, row: Row, size: Size, references: int = 0) -> float:
        """Return the bytes that one order of this size takes beside the weights, as estimated.

        A step and the decoding of another image may run at the same time, but not with offloading.
        """
        pixels = size[0] * size[1]
        tokens = pixels / PIXELS_PER_TOKEN + references * TILE**2 / PIXELS_PER_TOKEN + _longest_prompt(row)
        step = STEP_BYTES * tokens * self.width * self.number / 2
        whole = min(pixels, TILE**2) if row.tile else pixels
        decode = DECODE_BYTES * whole * self.number / 2
        return max(step, decode) if row.offload else step + decode


def _longest_prompt(row: Row) -> int:
    """Return the tokens of a long prompt, or the most that the row's upsampler may write.

    References that the upsampler sees leave that limit as it is, and the text encoder reads only what it wrote.
    """
    written = most_tokens(row.kind.pipeline) if row.upsampler else 0
    return min(row.kind.prompt_tokens, max(LONG_PROMPT, written))


def need(row: Row, device: str) -> Need:
    """Return what a row takes; a name on the Hub has no files to look at, so it takes nothing that is known."""
    number = BYTES[row.dtype or ("float32" if device == "cpu" else "bfloat16")]
    if row.is_file():
        checkpoint = recognise_file(Path(row.path), row.kind.name)
        transformer = _of_file(checkpoint)
        width = int(checkpoint.config["attention_head_dim"]) * int(checkpoint.config["num_attention_heads"])
        places = {column: Path(path) for column, path in row.parts}
    else:
        transformer = amount(read_folder(Path(row.path) / "transformer"))
        width = _width(read_folder(Path(row.path) / "transformer"))
        columns = ("text_encoder", "text_encoder_2", "vae")
        places = {column: Path(row.path) / column for column in columns if (Path(row.path) / column).is_dir()}
    texts = [amount(_part(places[column])) for column in ("text_encoder", "text_encoder_2") if column in places]
    text = Amount(
        sum(one.matrices for one in texts),
        sum(one.others for one in texts),
        blocks=max((one.blocks for one in texts), default=1),
    )
    writer = amount(read_folder(Path(row.upsampler))) if row.upsampler else Amount()
    return Need(transformer, text, amount(_part(places["vae"])), number, width, writer)


def file_size(checkpoint: Checkpoint) -> float:
    """Return the bytes of a transformer in one file as a GPU holds it: as on disk if quantised, else two a value."""
    return _of_file(checkpoint).size(None, BYTES["bfloat16"])


def _of_file(checkpoint: Checkpoint) -> Amount:
    return amount(transformer_of(read_header(checkpoint.path))[1], keep=checkpoint.stays_quantised)


def amount(header: Header, *, keep: bool = False) -> Amount:
    """Return what the tensors of one part hold; `keep` if they stay in the form that they have on disk."""
    matrices = sum(entry.count for entry in header.values() if len(entry.shape) == 2)  # noqa: PLR2004  (a matrix)
    others = sum(entry.count for entry in header.values()) - matrices
    stored = sum(entry.size for entry in header.values()) if keep else None
    kept = sum(entry.count for name, entry in header.items() if len(entry.shape) == 2 and KEPT.search(name))  # noqa: PLR2004
    return Amount(matrices, others, kept, stored, _blocks(header))


def _blocks(header: Header) -> int:
    """Return the number of repeated blocks, at least one."""
    stems = {name[: at.end(1)] for name in header if (at := BLOCK.search(name))}
    return max(1, len(stems))


def _part(place: Path) -> Header:
    return read_folder(place) if place.is_dir() else read_header(place)


def _width(header: Header) -> int:
    """Return the width of a transformer in diffusers' layout."""
    names = ("x_embedder.weight", "x_embedders.image.weight")
    return next((header[name].shape[0] for name in names if name in header), 0)


def total(needs: Iterable[tuple[Row, Need]], size: Size) -> float:
    """Return the bytes that rows take together with one order of this size; rows of the same weights share them."""
    pairs = list(needs)
    shared = {row.place(): (row, one) for row, one in pairs}
    resident = [one.resident(row) for row, one in shared.values()]
    # Of rows that share weights, one may have an upsampler and thereby longer prompts.
    working = [one.working(row, size) for row, one in pairs]
    return sum(resident) + max(working, default=0.0) + RESERVE
