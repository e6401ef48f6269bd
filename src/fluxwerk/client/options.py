"""The options of each model as types; written by `python tests/support/model_options.py` from the catalogue.

Nothing here runs: a program that names a model gets the options of that model completed, and any other call takes
`RequestOptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

from fluxwerk.client.inputs import ImageInput, RequestOptions
from fluxwerk.client.mask import MaskIs
from fluxwerk.types import Json, Request

R_co = TypeVar("R_co", covariant=True)


class CallOptions(TypedDict, total=False):
    """What a call takes beside the options of its model, as `RequestOptions` explains."""

    extra: Mapping[str, Json]
    timeout: float | None
    allow_empty_prompt: bool


class Flux2Klein4bOptions(CallOptions, total=False):
    """The options of flux-2-klein-4b and of the models that take the same."""

    input_image: ImageInput | None
    input_image_2: ImageInput | None
    input_image_3: ImageInput | None
    input_image_4: ImageInput | None
    width: int | None
    height: int | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    images: Sequence[ImageInput]


class Flux2ProOptions(CallOptions, total=False):
    """The options of flux-2-pro and of the models that take the same."""

    input_image: ImageInput | None
    input_image_2: ImageInput | None
    input_image_3: ImageInput | None
    input_image_4: ImageInput | None
    input_image_5: ImageInput | None
    input_image_6: ImageInput | None
    input_image_7: ImageInput | None
    input_image_8: ImageInput | None
    width: int | None
    height: int | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    disable_pup: bool | None
    images: Sequence[ImageInput]


class Flux2FlexOptions(CallOptions, total=False):
    """The options of flux-2-flex."""

    input_image: ImageInput | None
    input_image_2: ImageInput | None
    input_image_3: ImageInput | None
    input_image_4: ImageInput | None
    input_image_5: ImageInput | None
    input_image_6: ImageInput | None
    input_image_7: ImageInput | None
    input_image_8: ImageInput | None
    width: int | None
    height: int | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    prompt_upsampling: bool | None
    steps: int | None
    guidance: float | None
    images: Sequence[ImageInput]


class Flux2Klein4bFinetunedOptions(CallOptions, total=False):
    """The options of flux-2-klein-4b-finetuned and of the models that take the same."""

    input_image: ImageInput | None
    input_image_2: ImageInput | None
    input_image_3: ImageInput | None
    input_image_4: ImageInput | None
    finetune_id: str | None
    finetune_strength: float | None
    width: int | None
    height: int | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    webhook_url: str | None
    webhook_secret: str | None
    images: Sequence[ImageInput]


class Flux2DevOptions(CallOptions, total=False):
    """The options of flux-2-dev."""

    input_image: ImageInput | None
    input_image_2: ImageInput | None
    input_image_3: ImageInput | None
    input_image_4: ImageInput | None
    input_image_5: ImageInput | None
    input_image_6: ImageInput | None
    width: int | None
    height: int | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    steps: int | None
    guidance: float | None
    images: Sequence[ImageInput]


class FluxKontextProOptions(CallOptions, total=False):
    """The options of flux-kontext-pro and of the models that take the same."""

    input_image: ImageInput | None
    input_image_2: ImageInput | None
    input_image_3: ImageInput | None
    input_image_4: ImageInput | None
    aspect_ratio: str | None
    seed: int | None
    prompt_upsampling: bool | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    images: Sequence[ImageInput]


class FluxPro11Options(CallOptions, total=False):
    """The options of flux-pro-1.1."""

    image_prompt: ImageInput | None
    width: int | None
    height: int | None
    prompt_upsampling: bool | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None


class FluxDevOptions(CallOptions, total=False):
    """The options of flux-dev."""

    image_prompt: ImageInput | None
    width: int | None
    height: int | None
    prompt_upsampling: bool | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    steps: int | None
    guidance: float | None


class FluxPro11UltraOptions(CallOptions, total=False):
    """The options of flux-pro-1.1-ultra and of the models that take the same."""

    aspect_ratio: str | None
    raw: bool | None
    image_prompt: ImageInput | None
    image_prompt_strength: float | None
    prompt_upsampling: bool | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None


class FluxPro10FillOptions(CallOptions, total=False):
    """The options of flux-pro-1.0-fill."""

    image: ImageInput | None
    mask: ImageInput | None
    steps: int | None
    guidance: float | None
    prompt_upsampling: bool | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    mask_is: MaskIs


class FluxPro10ExpandOptions(CallOptions, total=False):
    """The options of flux-pro-1.0-expand."""

    image: ImageInput | None
    steps: int | None
    guidance: float | None
    prompt_upsampling: bool | None
    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    top: int | None
    bottom: int | None
    left: int | None
    right: int | None


class FluxToolsOutpaintingOptions(CallOptions, total=False):
    """The options of flux-tools-outpainting."""

    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    input_image: ImageInput | None
    width: int | None
    height: int | None
    reference_offset_x: int | None
    reference_offset_y: int | None
    auto_crop: bool | None
    mode: Literal["high", "fast"] | None
    disable_pup: bool | None


class FluxToolsEraseOptions(CallOptions, total=False):
    """The options of flux-tools-erase."""

    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    image: ImageInput | None
    mask: ImageInput | None
    dilate_pixels: int | None
    mask_is: MaskIs


class FluxToolsDeblurOptions(CallOptions, total=False):
    """The options of flux-tools-deblur."""

    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    image: ImageInput | None


class FluxToolsVtoV1Options(CallOptions, total=False):
    """The options of flux-tools-vto-v1 and of the models that take the same."""

    seed: int | None
    safety_tolerance: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    person: ImageInput | None
    garment: ImageInput | None


class Flux3ImageOptions(CallOptions, total=False):
    """The options of flux-3-image."""

    aspect_ratio: (
        Literal[
            "auto",
            "21:9",
            "2:1",
            "16:9",
            "3:2",
            "7:5",
            "4:3",
            "5:4",
            "1:1",
            "4:5",
            "3:4",
            "5:7",
            "2:3",
            "9:16",
            "1:2",
            "9:21",
        ]
        | None
    )
    resolution: Literal["768sq", "1k", "1.5k", "2k", "4k"] | None
    safety_tolerance: int | None
    grounding: bool | None
    version: str | None
    images: Sequence[ImageInput]


class Flux3ImageKleinOptions(CallOptions, total=False):
    """The options of flux-3-image-klein."""

    aspect_ratio: (
        Literal[
            "auto",
            "21:9",
            "2:1",
            "16:9",
            "3:2",
            "7:5",
            "4:3",
            "5:4",
            "1:1",
            "4:5",
            "3:4",
            "5:7",
            "2:3",
            "9:16",
            "1:2",
            "9:21",
        ]
        | None
    )
    resolution: Literal["768sq", "1k", "1.5k", "2k", "4k"] | None
    safety_tolerance: int | None
    width: int | None
    height: int | None
    seed: int | None
    steps: int | None
    output_format: Literal["jpeg", "png", "webp"] | None
    images: Sequence[ImageInput]


class Making(Protocol[R_co]):
    """A method that makes something of a prompt, with the options of the model that it names."""

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal[
            "flux-2-klein-4b",
            "klein-4b",
            "flux-2-klein",
            "flux-2-klein-9b",
            "klein-9b",
            "flux-2-klein-9b-preview",
            "klein-9b-preview",
        ],
        **wanted: Unpack[Flux2Klein4bOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-2-pro", "pro", "flux-2-pro-preview", "pro-preview", "flux-2-max", "max"],
        **wanted: Unpack[Flux2ProOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self, prompt: str | None = None, *, model: Literal["flux-2-flex", "flex"], **wanted: Unpack[Flux2FlexOptions]
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal[
            "flux-2-klein-4b-finetuned",
            "flux-2-klein-9b-finetuned",
            "flux-2-klein-9b-kv-finetuned",
            "flux-2-klein-9b-kv-bf16-finetuned",
            "flux-2-klein-base-4b-finetuned",
            "flux-2-klein-base-9b-finetuned",
        ],
        **wanted: Unpack[Flux2Klein4bFinetunedOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self, prompt: str | None = None, *, model: Literal["flux-2-dev", "dev"], **wanted: Unpack[Flux2DevOptions]
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-kontext-pro", "flux-kontext", "kontext", "kontext-pro", "flux-kontext-max", "kontext-max"],
        **wanted: Unpack[FluxKontextProOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-pro-1.1", "flux-1.1-pro", "flux-pro"],
        **wanted: Unpack[FluxPro11Options],
    ) -> R_co: ...

    @overload
    def __call__(
        self, prompt: str | None = None, *, model: Literal["flux-dev", "flux-1-dev"], **wanted: Unpack[FluxDevOptions]
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-pro-1.1-ultra", "ultra", "flux-pro-1.1-raw", "raw"],
        **wanted: Unpack[FluxPro11UltraOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-pro-1.0-fill", "flux-fill", "fill"],
        **wanted: Unpack[FluxPro10FillOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-pro-1.0-expand", "flux-expand", "expand"],
        **wanted: Unpack[FluxPro10ExpandOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-tools-outpainting", "outpainting", "outpaint", "flux-tools/outpainting-v1"],
        **wanted: Unpack[FluxToolsOutpaintingOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-tools-erase", "erase", "flux-tools/erase-v1"],
        **wanted: Unpack[FluxToolsEraseOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-tools-deblur", "deblur", "flux-tools/deblur-v1"],
        **wanted: Unpack[FluxToolsDeblurOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal[
            "flux-tools-vto-v1",
            "vto-v1",
            "flux-tools/vto-v1",
            "flux-tools-vto-v2",
            "vto-v2",
            "vto",
            "flux-tools/vto-v2",
        ],
        **wanted: Unpack[FluxToolsVtoV1Options],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-3-image", "flux-3"],
        **wanted: Unpack[Flux3ImageOptions],
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        model: Literal["flux-3-image-klein", "flux-3-klein"],
        **wanted: Unpack[Flux3ImageKleinOptions],
    ) -> R_co: ...

    @overload
    def __call__(self, prompt: str | Request | None = None, **wanted: Unpack[RequestOptions]) -> R_co: ...


class ByModel(Generic[R_co]):
    """The decorator of such a method; when the program runs, it returns the method as it is."""

    def __init__(self, method: Callable[..., R_co]) -> None: ...

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[..., R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Making[R_co]: ...
    def __get__(self, instance: object, owner: type) -> object: ...
