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
INSTEAD = "take the bfloat16, fp8 or GGUF file of this model"


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
    # Files of encoders have their vocabulary as bytes, in a tensor of one dimension.
    held = {entry.dtype for name, entry in header.items() if not name.endswith(SCALES) and len(entry.shape) > 1}
    if "U8" in held or any(name.endswith(".weight_scale_2") for name in header):
        # The files of BFL and ComfyUI order their values for comfy-kitchen, and diffusers would read them wrongly.
        why = "is in NVFP4, four bits a value in ComfyUI's own order, which only ComfyUI on a Blackwell GPU multiplies"
        return why, f"{INSTEAD}; a GGUF file of Q4_K is as small"
    if "I8" in held:
        why = "is in ComfyUI's int8, whose values may be rotated and cannot be loaded"
        return why, f'{INSTEAD}; quantize = "int8" makes int8 from it'
    for name, entry in header.items():
        stem = next((name.removesuffix(end) for end in SCALE_OF if name.endswith(end)), None)
        weight = header.get(f"{stem}.weight")
        if weight is not None and entry.count not in (1, weight.shape[0]):
            return "is in fp8 with a scale for each block of values, which cannot be loaded", INSTEAD
    if scale := _unread_scale(header):
        return f"is in fp8 and holds {scale}, a scale that the engine cannot apply", INSTEAD
    return None


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
