"""Build requests: read, measure and encode images of every kind of source, and check options."""

from __future__ import annotations

import base64
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, TypedDict, cast

from fluxwerk import catalog, imagefile
from fluxwerk.catalog.images import LARGEST_BYTES, check_mask, inspect
from fluxwerk.catalog.rows import IMAGE_TYPES, Model
from fluxwerk.catalog.sizes import Size
from fluxwerk.client import conversion
from fluxwerk.client.mask import CONVENTIONS, Mask, MaskIs, read_mask
from fluxwerk.errors import Fault
from fluxwerk.protocol.trust import redact
from fluxwerk.types import Json, Request

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


class HasData(Protocol):
    """An object that holds the bytes of an image, such as the result of an earlier request."""

    @property
    def data(self) -> bytes:
        """The bytes of a whole file."""
        ...


ImageInput: TypeAlias = "str | bytes | os.PathLike[str] | BinaryIO | PilImage | HasData | EncodedImage"

LONGEST_PATH = 4096
LONGEST_DATA_URI_SHOWN = 100
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"})
# Image fields whose sizes do not count for the price.
UNPRICED = frozenset({"mask"})
# The image fields of a model made by hand, which lists no options.
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
    """What `generate` and `submit` take besides the prompt.

    `images` go into the model's image fields in order; `mask_is` says what marks the part of a mask to repaint;
    `extra` is sent unchecked, for what is newer than this release; `timeout` is the deadline in seconds for the whole
    method; `allow_empty_prompt` lets a blank prompt pass, which costs what any other does.
    """

    model: str | Model
    images: Sequence[ImageInput]
    mask_is: MaskIs
    extra: Mapping[str, Json]
    timeout: float | None
    allow_empty_prompt: bool


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as it will be sent: a URL, or base64; `size` in pixels as a viewer shows it, `None` for a URL.

    `opaque` is true where the file is known to have no transparent part.
    """

    text: str = field(repr=False)
    size: Size | None = None
    opaque: bool = field(default=False, repr=False, compare=False)


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
    than this release. The option `mask_is` is the client's own.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    mask_is = given.pop("mask_is", None)
    if prompt is not None:
        given = {"prompt": prompt, **given}
    faults = [*_place_images(model, images, given), *_check_mask_is(mask_is, given)]
    mask_is = mask_is if mask_is in CONVENTIONS else None
    _translate_upsampling(model, given)
    sizes: list[Size | None] = []
    measured: dict[str, Size | None] = {}
    # The order of the model's own fields says which image is the first, and so how large the result becomes.
    for name in [name for name in model.options or dict(given) if name in given and _holds_images(model, name)]:
        attached, wrong = _attach_all(given[name], name, model, mask_is)
        faults += wrong
        given[name] = [one.text for one in attached] if name == "images" else "".join(a.text for a in attached)
        measured[name] = attached[0].size if attached else None
        faults += _check_marked(model, name, attached, given)
        if name not in UNPRICED:
            sizes += [one.size for one in attached]
    broken = {fault.field for fault in faults}
    faults += [fault for fault in catalog.check(model, given) if fault.field not in broken]
    faults += filter(None, [check_mask(measured.get("mask"), measured.get("image"))])
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


def attach(
    source: ImageInput, name: str, model: Model, *, mask_is: MaskIs | None = None, as_it_is: bool = False
) -> EncodedImage | Fault:
    """Read one image and measure it against what the model takes; the fault says what is wrong with it.

    A still that the service does not read is converted, and a mask is read by `mask_is`; with `as_it_is` nothing is
    rewritten, and what would have to be is a fault.
    """
    if isinstance(source, EncodedImage):
        return source
    if isinstance(source, str) and source.lstrip().startswith(("http://", "https://")):
        return EncodedImage(source.strip())
    data = _read(source, name, model)
    if isinstance(data, bytes) and not as_it_is and imagefile.measure(data) is None:
        kind = imagefile.format_name(data)
        data = conversion.convert(name, data, kind, model) if kind else data
    found = inspect(name, data, model) if isinstance(data, bytes) else data
    if isinstance(found, Fault) or isinstance(data, Fault):
        fault = cast("Fault", found)
        return replace(fault, hint=fault.hint or ("" if fault.value else _origin(source)))
    if name != "mask":
        return EncodedImage(_encode(data), found.upright, not imagefile.may_be_transparent(data))
    mask = read_mask(data, found, model, mask_is)
    if isinstance(mask, Mask) and as_it_is and mask.data != data:
        return Fault(name, None, "must be black and white here", "white is repainted")
    return EncodedImage(_encode(mask.data), found.upright) if isinstance(mask, Mask) else mask


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _place_images(model: Model, images: Sequence[ImageInput], given: dict[str, Json]) -> Iterator[Fault]:
    if isinstance(images, str | bytes | os.PathLike):
        yield Fault("images", None, "must be a list of images", "for one image: [image]")
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
        allowed = f"{model.name} takes at most {most} image{'' if most == 1 else 's'} here"
        fields = ", ".join(name for name in model.options if _holds_images(model, name))
        hint = f"name the fields of its images: {fields}" if fields and not most else ""
        yield Fault("images", f"{len(images)}", allowed, hint)
        return
    placed: Iterable[tuple[str, Json]] = (
        [("images", list(images))] if names == ("images",) else zip(names, images, strict=False)
    )
    for name, source in placed:
        if name in given:
            yield Fault(name, None, "is given twice: by its own name and in images")
        given[name] = source


def _translate_upsampling(model: Model, given: dict[str, Json]) -> None:
    """Translate `prompt_upsampling` for models whose upsampling is on by default: they take `disable_pup` instead."""
    if "prompt_upsampling" in given and "disable_pup" in model.options and "disable_pup" not in given:
        wanted = given.pop("prompt_upsampling")
        given["disable_pup"] = not wanted if isinstance(wanted, bool) else wanted


def _holds_images(model: Model, name: str) -> bool:
    option = model.options.get(name)
    if option is None:
        return not model.options and IMAGE_NAME.fullmatch(name) is not None
    return option.type in IMAGE_TYPES


def _check_mask_is(mask_is: Json, given: Mapping[str, Json]) -> Iterator[Fault]:
    if mask_is is None:
        return
    mask = given.get("mask")
    if mask_is not in CONVENTIONS:
        yield Fault("mask_is", mask_is, 'must be "transparent" or "white"')
    elif mask is None:
        yield Fault("mask_is", mask_is, "needs a mask")
    elif mask_is == "transparent" and isinstance(mask, str) and mask.startswith(("http://", "https://")):
        yield Fault(
            "mask_is", mask_is, "needs the mask as a file", "the service fetches a URL itself, and repaints white"
        )


def _check_marked(model: Model, name: str, attached: list[EncodedImage], given: Mapping[str, Json]) -> Iterator[Fault]:
    """Refuse an image without a mask that is not transparent anywhere, since nothing of it would be repainted."""
    mask = model.options.get("mask")
    if name == "image" and mask and not mask.required and "mask" not in given and any(one.opaque for one in attached):
        yield Fault(
            "mask", None, "is missing, and no part of the image is transparent", "one of them marks what to repaint"
        )


def _attach_all(value: Json, name: str, model: Model, mask_is: MaskIs | None) -> tuple[list[EncodedImage], list[Fault]]:
    several = name == "images" and isinstance(value, list | tuple)
    sources = cast("list[ImageInput]", value if several else [value])
    results = [attach(source, name, model, mask_is=mask_is) for source in sources]
    attached = [result for result in results if isinstance(result, EncodedImage)]
    return attached, [result for result in results if isinstance(result, Fault)]


def _read(source: Json, name: str, model: Model) -> bytes | Fault:
    # The result of an earlier request holds its bytes.
    held = getattr(source, "data", None)
    source = held if isinstance(held, bytes) else source
    if isinstance(source, bytes | bytearray):
        return bytes(source)
    if isinstance(source, os.PathLike):
        return _read_file(Path(cast("os.PathLike[str]", source)), name)
    if isinstance(source, str):
        return _read_text(source, name)
    if hasattr(source, "read"):
        data = _read_stream(source)
        return data if isinstance(data, bytes) else Fault(name, None, "must be opened in binary mode")
    if hasattr(source, "save"):
        return conversion.encode(name, source, model)
    kind = type(source).__name__
    return Fault(name, kind, "must be a path, bytes, a file, a PIL image, an http(s) URL, a data URI or base64")


def _read_stream(file: Json) -> Json:
    """Read no more than the service takes, but a still of a bulkier format whole, since it is converted."""
    data = file.read(LARGEST_BYTES + 1)
    if isinstance(data, bytes) and len(data) > LARGEST_BYTES and imagefile.format_name(data):
        data += file.read(conversion.LARGEST_STILL - len(data))
    return data


def _read_text(text: str, name: str) -> bytes | Fault:
    """Read a text as a data URI, a path or, if it is neither, base64."""
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
        path = path.expanduser()
        if not stat.S_ISREG(path.stat().st_mode):
            # Opening a FIFO would wait for its writer.
            return Fault(name, str(path), "cannot be read: it is not a regular file")
        with path.open("rb") as file:
            return cast("bytes", _read_stream(file))
    except FileNotFoundError:
        return Fault(name, redact(str(path)), "there is no such file")
    except (OSError, ValueError, RuntimeError) as error:
        # A name with a null in it, and the home of an unknown user.
        return Fault(name, str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _decode(text: str, name: str) -> bytes | Fault:
    try:
        return imagefile.read_base64(text)
    except ValueError:
        return Fault(name, redact(text), "is not a file, a URL, a data URI or base64")


def _origin(source: ImageInput) -> str:
    if isinstance(source, os.PathLike):
        return os.fspath(source)
    return source if isinstance(source, str) and len(source) <= LONGEST_PATH and _is_file(source) else ""
