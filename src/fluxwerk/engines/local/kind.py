"""The kinds of open FLUX weights and what each can do, as data; none of it needs the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NON_COMMERCIAL = "FLUX non-commercial"
APACHE = "Apache-2.0"
KOMMUNITY = "FLUX Kommunity License"


@dataclass(frozen=True, slots=True)
class Kind:
    """One pipeline class of diffusers, as this engine uses it.

    `models` are the catalogue names that such weights serve by default; `generates` means that the pipeline makes an
    image from a prompt, `fills` that it repaints part of one, `guided` that guidance has an effect, `fixed` that the
    weights were distilled for that number of steps. Steps and guidance are those of the model cards.
    """

    name: str
    pipeline: str
    models: tuple[str, ...]
    licence: str
    steps: int
    guidance: float
    references: int = 0
    generates: bool = True
    fills: bool = False
    guided: bool = True
    fixed: bool = False
    prompt_tokens: int = 512


_KINDS = (
    Kind(
        "klein",
        "Flux2KleinPipeline",
        ("flux-2-klein-4b",),
        APACHE,
        steps=4,
        guidance=1.0,
        references=4,
        fills=True,
        guided=False,
        fixed=True,
    ),
    Kind(
        "klein-base",
        "Flux2KleinPipeline",
        ("flux-2-klein-4b",),
        APACHE,
        steps=50,
        guidance=4.0,
        references=4,
        fills=True,
    ),
    Kind(
        "klein-kv",
        "Flux2KleinKVPipeline",
        ("flux-2-klein-9b-preview",),
        NON_COMMERCIAL,
        steps=4,
        guidance=1.0,
        references=4,
        guided=False,
        fixed=True,
    ),
    Kind("dev", "Flux2Pipeline", ("flux-2-dev",), NON_COMMERCIAL, steps=28, guidance=4.0, references=8),
    Kind(
        "flux3-klein",
        "Flux3DistilledModularPipeline",
        ("flux-3-image-klein",),
        KOMMUNITY,
        steps=16,
        guidance=1.0,
        references=10,
        guided=False,
        fixed=True,
        prompt_tokens=8192,
    ),
    Kind(
        "flux3-klein-base",
        "Flux3ModularPipeline",
        ("flux-3-image-klein",),
        KOMMUNITY,
        steps=50,
        guidance=4.0,
        references=10,
        prompt_tokens=8192,
    ),
    Kind("flux1-dev", "FluxPipeline", ("flux-dev",), NON_COMMERCIAL, steps=28, guidance=3.5),
    Kind(
        "flux1-schnell",
        "FluxPipeline",
        ("flux-dev",),
        APACHE,
        steps=4,
        guidance=0.0,
        guided=False,
        fixed=True,
        prompt_tokens=256,
    ),
    Kind("kontext", "FluxKontextPipeline", ("flux-kontext-pro",), NON_COMMERCIAL, steps=28, guidance=2.5, references=1),
    Kind(
        "fill",
        "FluxFillPipeline",
        ("flux-pro-1.0-fill", "flux-pro-1.0-expand"),
        NON_COMMERCIAL,
        steps=50,
        guidance=30.0,
        generates=False,
        fills=True,
    ),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
# The joint width of klein 9B, whose licence differs from that of 4B.
WIDTH_9B = 12288


def recognise(pipeline: str, *, distilled: bool = True, guided: bool = True) -> Kind | None:
    """Return the kind of a pipeline class, or `None` if this engine does not support it.

    `distilled` is what the `model_index.json` of a klein says, `guided` whether a FLUX.1 transformer takes guidance.
    """
    found = [kind for kind in _KINDS if kind.pipeline == pipeline]
    if len(found) > 1:
        wanted = (not distilled) if pipeline == "Flux2KleinPipeline" else guided
        found = [kind for kind in found if kind.guided == wanted]
    return found[0] if found else None
