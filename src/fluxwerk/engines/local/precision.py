"""The number format of a file's weights, and which formats cannot be read."""

from __future__ import annotations

from collections import Counter

from fluxwerk.engines.local.header import Header, TensorEntry

PRECISIONS = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F8_E4M3": "fp8",
    "F8_E5M2": "fp8",
}
# What stands beside a quantised weight and is not a weight.
SCALES = ("scale_weight", "weight_scale", "weight_scale_2", "scale_input", "input_scale", "comfy_quant", "scaled_fp8")
# The scale of an fp8 weight has one of these names: the newer first, then that of ComfyUI's first files.
SCALE_OF = (".weight_scale", ".scale_weight")
# No weights in GGUF become int8: they stay quantised as they are.
INSTEAD = (
    "take the bfloat16 or float16 original, fp8 with one scale for each matrix or row, or a GGUF file; "
    'quantize = "int8" makes int8 from the first two'
)
FOUR_BITS_INSTEAD = f"{INSTEAD}; a GGUF file of Q4_K is as small"


def precision(header: Header) -> str:
    """Return the format of most bytes."""
    sizes: Counter[str] = Counter()
    for name, entry in header.items():
        if not name.endswith(SCALES):
            sizes[entry.dtype] += entry.size
    most = sizes.most_common(1)[0][0]
    return PRECISIONS.get(most, f"GGUF {most}")


def unreadable(header: Header) -> tuple[str, str] | None:
    """Return why no part of the engine can read these weights and what to take instead, or `None` if it can.

    A file counts by its smallest weights, because files mix formats.
    """
    if refusal := _packed(header):
        return refusal
    for name, entry in header.items():
        stem = next((name.removesuffix(end) for end in SCALE_OF if name.endswith(end)), None)
        weight = header.get(f"{stem}.weight")
        if weight is not None and entry.count not in (1, weight.shape[0]):
            return "is in fp8 with a scale for each block of values, which cannot be loaded", INSTEAD
    if scale := _unread_scale(header):
        return f"is in fp8 and holds {scale}, a scale that the engine cannot apply", INSTEAD
    return None


def _packed(header: Header) -> tuple[str, str] | None:
    """Return the refusal of values that are packed in bytes; their form is told by what stands beside them."""
    if any(name.endswith(".weight_scale_2") for name in header):
        # The files of BFL and ComfyUI order their values for comfy-kitchen, and diffusers would read them wrongly.
        why = "is in NVFP4, four bits a value in ComfyUI's own order, which only ComfyUI on a Blackwell GPU multiplies"
        return why, FOUR_BITS_INSTEAD
    packed = [name for name, entry in header.items() if _is_packed(name, entry)]
    if not packed:
        return None
    if any(name.endswith(".absmax") or ".quant_state" in name for name in header):
        return "is in bitsandbytes' four bits a value (NF4 or FP4), which cannot be loaded", FOUR_BITS_INSTEAD
    if any(_is_comfy_int8(name, header) for name in packed):
        return "is in ComfyUI's int8, whose values may be rotated and cannot be loaded", INSTEAD
    return f"packs its values in bytes, such as those of {packed[0]}, in a form that cannot be read", INSTEAD


def _is_packed(name: str, entry: TensorEntry) -> bool:
    """Whether a tensor has bytes for weights; encoders have their vocabulary as bytes, in one dimension."""
    return entry.dtype in ("U8", "I8") and len(entry.shape) > 1 and not name.endswith(SCALES)


def _is_comfy_int8(name: str, header: Header) -> bool:
    marks = (f"{_module(name)}.{mark}" for mark in ("comfy_quant", "weight_scale"))
    return header[name].dtype == "I8" and any(mark in header for mark in marks)


def _unread_scale(header: Header) -> str | None:
    """Return the name of a scale beside an fp8 weight that would be left out, such as `weight_scale_inv`.

    Without its scale a weight loads without an error and renders noise.
    """
    modules = {_module(name) for name, entry in header.items() if _is_fp8_matrix(entry)}
    return next((name for name in header if _is_unread(name) and _module(name) in modules), None)


def _is_fp8_matrix(entry: TensorEntry) -> bool:
    return PRECISIONS.get(entry.dtype) == "fp8" and len(entry.shape) > 1


def _is_unread(name: str) -> bool:
    last = name.rpartition(".")[2]
    return "scale" in last and last not in SCALES


def _module(name: str) -> str:
    """Return what a tensor belongs to; some files write `linear.weight.scale` for the scale of `linear.weight`."""
    return name.rpartition(".")[0].removesuffix(".weight")
