"""From what a caller has in hand to a request: images read, measured and turned into text, options checked."""

from __future__ import annotations

import base64
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, TypedDict, cast

from fluxwerk import catalog, imagefile
from fluxwerk.catalog.rows import IMAGE_TYPES, Model
from fluxwerk.catalog.sizes import Size
from fluxwerk.errors import Fault
from fluxwerk.protocol.trust import redact
from fluxwerk.types import Json, Request

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


class HasData(Protocol):
    """Whatever holds the bytes of an image, as an image that was made before does."""

    @property
    def data(self) -> bytes:
        """The bytes of a whole file."""
        ...


ImageInput: TypeAlias = "str | bytes | os.PathLike[str] | BinaryIO | PilImage | HasData | EncodedImage"

# The service takes 20 MB or 20 megapixels an image, by its documentation.
LARGEST_BYTES = 20 * 1024 * 1024
LONGEST_PATH = 4096
LONGEST_DATA_URI_SHOWN = 100
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"})
# What an image field says about the sizes that count for the price: masks do not.
UNPRICED = frozenset({"mask"})
# What holds an image in a model made by hand, which has no options to ask.
IMAGE_NAME = re.compile(r"input_image(_[0-9]+)?|images?|image_prompt|mask|person|garment")

log = logging.getLogger("fluxwerk")


class ModelOptions(TypedDict, total=False):
    """Every option that some model takes; `fluxwerk models NAME` shows which takes which."""

    width: int | None
    height: int | None
    aspect_ratio: str | None
    resolution: str
    seed: int | None
    steps: int | None
    guidance: float | None
    prompt_upsampling: bool | None
    disable_pup: bool
    raw: bool
    input_image: ImageInput | None
    input_image_2: ImageInput | None
    input_image_3: ImageInput | None
    input_image_4: ImageInput | None
    input_image_5: ImageInput | None
    input_image_6: ImageInput | None
    input_image_7: ImageInput | None
    input_image_8: ImageInput | None
    image: ImageInput
    mask: ImageInput | None
    image_prompt: ImageInput | None
    image_prompt_strength: float
    person: ImageInput
    garment: ImageInput
    top: int | None
    bottom: int | None
    left: int | None
    right: int | None
    reference_offset_x: int | None
    reference_offset_y: int | None
    auto_crop: bool
    mode: str
    dilate_pixels: int
    grounding: bool
    version: str
    safety_tolerance: int
    output_format: str | None
    user: str | None
    webhook_url: str | None
    webhook_secret: str | None
    finetune_id: str
    finetune_strength: float


class RequestOptions(ModelOptions, total=False):
    """What `generate` and `submit` take beside the prompt.

    `images` go into the model's image fields in order; `extra` is sent unchecked, for what is newer than this release;
    `timeout` is the deadline in seconds for the whole method; `allow_empty_prompt` lets a blank prompt pass, which
    costs what any other does.
    """

    model: str | Model
    images: Sequence[ImageInput]
    extra: Mapping[str, Json]
    timeout: float | None
    allow_empty_prompt: bool


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as it will be sent: a URL, or base64; `size` in pixels, `None` for a URL."""

    text: str = field(repr=False)
    size: Size | None = None


def compose(
    model: Model,
    prompt: str | None = None,
    *,
    images: Sequence[ImageInput] = (),
    options: Mapping[str, Json] | None = None,
    extra: Mapping[str, Json] | None = None,
    allow_empty_prompt: bool = False,
) -> Request:
    """Build a request, or raise `InvalidUsageError` with every fault in it; reads files, sends nothing.

    `images` are put into the model's image fields in order; `extra` goes to the service unchecked, for what is newer
    than this release.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if prompt is not None:
        given = {"prompt": prompt, **given}
    faults = list(_place_images(model, images, given))
    _translate_upsampling(model, given)
    sizes: list[Size | None] = []
    measured: dict[str, Size | None] = {}
    # The order of the model's own fields says which image is the first, and so how large the result becomes.
    for name in [name for name in model.options or dict(given) if name in given and _holds_images(model, name)]:
        attached, wrong = _attach_all(given[name], name, model)
        faults += wrong
        given[name] = [one.text for one in attached] if name == "images" else "".join(a.text for a in attached)
        measured[name] = attached[0].size if attached else None
        if name not in UNPRICED:
            sizes += [one.size for one in attached]
    broken = {fault.field for fault in faults}
    faults += [fault for fault in catalog.check(model, given) if fault.field not in broken]
    faults += _check_mask(measured)
    if not allow_empty_prompt:
        faults += _check_prompt(model, given)
    catalog.refuse(model, faults)
    if extra:
        log.warning("sent unchecked to %s: %s", model.name, ", ".join(sorted(extra)))
    return Request(model.name, {**given, **(extra or {})}, tuple(sizes))


def _check_prompt(model: Model, given: Mapping[str, Json]) -> Iterator[Fault]:
    """Refuse a blank prompt where the model needs one: the image would be paid for and show anything."""
    option, prompt = model.options.get("prompt"), given.get("prompt")
    if option and option.required and isinstance(prompt, str) and not prompt.strip():
        yield Fault("prompt", prompt, "must hold at least one word", "in Python allow_empty_prompt=True sends it")


def attach(source: ImageInput, name: str, model: Model) -> EncodedImage | Fault:
    """Read one image and measure it against what the model takes; the fault says what is wrong with it."""
    if isinstance(source, EncodedImage):
        return source
    if isinstance(source, str) and source.lstrip().startswith(("http://", "https://")):
        return EncodedImage(source.strip())
    data = _read(source, name)
    if isinstance(data, Fault):
        return data
    if len(data) > LARGEST_BYTES:
        return Fault(name, None, "must be at most 20 MB", "shrink it or save it as JPEG")
    fault = imagefile.fault(data)
    found = imagefile.measure(data)
    if fault or found is None:
        return Fault(name, None, f"{fault}; a whole PNG, JPEG or WebP is needed", _origin(source))
    wrong = _check_size(found.size, name, model)
    return wrong or EncodedImage(base64.b64encode(data).decode("ascii"), found.size)


def _place_images(model: Model, images: Sequence[ImageInput], given: dict[str, Json]) -> Iterator[Fault]:
    if isinstance(images, str | bytes | os.PathLike):
        yield Fault("images", None, "must be a list of images", "put brackets around the one")
        return
    if not images:
        return
    names = model.reference_names() or tuple(
        name for name in ("image", "input_image", "image_prompt") if name in model.options
    )
    most = model.references or len(names)
    if not model.options:
        names = tuple(f"input_image_{n}" if n > 1 else "input_image" for n in range(1, len(images) + 1))
        most = len(images)
    if len(images) > most:
        allowed = f"{model.name} takes at most {most} images" if most else f"{model.name} takes no such images"
        yield Fault("images", f"{len(images)} images", allowed)
        return
    placed: Iterable[tuple[str, Json]] = (
        [("images", list(images))] if names == ("images",) else zip(names, images, strict=False)
    )
    for name, source in placed:
        if name in given:
            yield Fault(name, None, "is given twice: once by itself and once in images")
        given[name] = source


def _translate_upsampling(model: Model, given: dict[str, Json]) -> None:
    """Let one word serve all models: where upsampling is on by default the service has a switch to turn it off."""
    if "prompt_upsampling" in given and "disable_pup" in model.options and "disable_pup" not in given:
        wanted = given.pop("prompt_upsampling")
        given["disable_pup"] = not wanted if isinstance(wanted, bool) else wanted


def _holds_images(model: Model, name: str) -> bool:
    option = model.options.get(name)
    if option is None:
        return not model.options and IMAGE_NAME.fullmatch(name) is not None
    return option.type in IMAGE_TYPES


def _attach_all(value: Json, name: str, model: Model) -> tuple[list[EncodedImage], list[Fault]]:
    several = name == "images" and isinstance(value, list | tuple)
    sources = cast("list[ImageInput]", value if several else [value])
    results = [attach(source, name, model) for source in sources]
    attached = [result for result in results if isinstance(result, EncodedImage)]
    return attached, [result for result in results if isinstance(result, Fault)]


def _check_mask(measured: Mapping[str, Size | None]) -> list[Fault]:
    mask, image = measured.get("mask"), measured.get("image")
    if not mask or not image or mask == image:
        return []
    return [Fault("mask", "{}×{}".format(*mask), "must be as large as the image, {}×{}".format(*image))]


def _check_size(size: Size, name: str, model: Model) -> Fault | None:
    width, height = size
    least, most = model.smallest_input, model.largest_input_megapixels
    if width * height > most * 1_000_000:
        return Fault(name, f"{width}×{height}", f"must be at most {most} megapixels", "shrink it first")
    if min(width, height) < least:
        return Fault(name, f"{width}×{height}", f"must be at least {least} pixels on each side")
    return None


def _read(source: Json, name: str) -> bytes | Fault:
    # An image that was made before holds its bytes.
    held = getattr(source, "data", None)
    source = held if isinstance(held, bytes) else source
    if isinstance(source, bytes | bytearray):
        return bytes(source)
    if isinstance(source, os.PathLike):
        return _read_file(Path(cast("os.PathLike[str]", source)), name)
    if isinstance(source, str):
        return _read_text(source, name)
    if hasattr(source, "read"):
        data = source.read(LARGEST_BYTES + 1)
        return data if isinstance(data, bytes) else Fault(name, None, "must be opened in binary mode")
    if hasattr(source, "save"):
        return _read_pil(source, name)
    kind = type(source).__name__
    return Fault(name, kind, "must be a path, bytes, a file, a PIL image, an http(s) URL, a data URI or base64")


def _read_text(text: str, name: str) -> bytes | Fault:
    """Tell a data URI, a path and base64 apart; base64 is what remains."""
    if imagefile.is_data_uri(text):
        try:
            return imagefile.read_base64(text)
        except ValueError as wrong:
            return Fault(name, redact(text.lstrip().partition(",")[0][:LONGEST_DATA_URI_SHOWN]), str(wrong))
    if len(text) <= LONGEST_PATH and (_is_file(text) or Path(text).suffix.lower() in IMAGE_SUFFIXES):
        return _read_file(Path(text), name)
    return _decode(text, name)


def _is_file(text: str) -> bool:
    # Path.is_file raises where a text is too long for a name, as base64 is.
    return os.path.isfile(text)  # noqa: PTH113


def _read_file(path: Path, name: str) -> bytes | Fault:
    try:
        with path.expanduser().open("rb") as file:
            return file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        return Fault(name, redact(str(path)), "there is no such file")
    except (OSError, ValueError, RuntimeError) as trouble:
        # No file system takes a name with a null in it, and no home is known of "~stranger".
        return Fault(name, str(path), f"cannot be read: {getattr(trouble, 'strerror', None) or trouble}")


def _decode(text: str, name: str) -> bytes | Fault:
    try:
        return imagefile.read_base64(text)
    except ValueError:
        return Fault(name, redact(text), "is no file, no URL, no data URI and no base64")


def _read_pil(image: PilImage, name: str) -> bytes | Fault:
    file = io.BytesIO()
    try:
        image.save(file, "PNG")
    except (OSError, ValueError) as trouble:
        return Fault(name, None, f"cannot be saved as PNG: {trouble}", 'image.convert("RGB") may help')
    return file.getvalue()


def _origin(source: ImageInput) -> str:
    if isinstance(source, os.PathLike):
        return os.fspath(source)
    return source if isinstance(source, str) and len(source) <= LONGEST_PATH and _is_file(source) else ""
