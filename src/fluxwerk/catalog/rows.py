"""The models and what each of them takes, read from the rows of `models.toml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

from fluxwerk.errors import Fault, InvalidUsageError, UnknownModelError
from fluxwerk.types import Json

IMAGE_TYPES = frozenset({"image", "images"})
KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "string": (str, "a text"),
    "secret": (str, "a text"),
    "image": (str, "an image"),
    "images": ((str, list), "an image or a list of them"),
    "url": (str, "an http or https URL"),
    "ratio": (str, 'a ratio such as "16:9"'),
    "integer": (int, "a whole number"),
    "number": ((int, float, Decimal), "a number"),
    "boolean": (bool, "true or false"),
}
# FLUX.1 takes ratios from 21:9 to 9:21, by the text of the service's OpenAPI.
WIDEST = Decimal(21) / 9
LONGEST_SIDE_OF_RATIO = 5


@dataclass(frozen=True, slots=True)
class Option:
    """The values that one field of a request may have; bounds are in the field's unit, lengths in characters."""

    name: str
    type: str
    required: bool = False
    nullable: bool = False
    default: Json = None
    minimum: Decimal | int | None = None
    maximum: Decimal | int | None = None
    multiple: int | None = None
    choices: tuple[str, ...] = ()
    minimum_length: int | None = None
    maximum_length: int | None = None
    zero_is_auto: bool = False
    note: str = ""

    def allowed(self) -> str:
        """Describe the allowed values in words."""
        words = "one of " + ", ".join(self.choices) if self.choices else KINDS[self.type][1]
        if self.minimum is not None and self.maximum is not None:
            words += f" from {self.minimum} to {self.maximum}"
        elif self.minimum is not None:
            words += f" of at least {self.minimum}"
        if self.multiple:
            words += f", a multiple of {self.multiple}"
        if self.maximum_length:
            words += f" of {self.minimum_length} to {self.maximum_length} characters"
        return words


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs in credits: by megapixel (`first`, `more`), by image, or by image and its resolution.

    Without `inputs` the megapixels of the images in the request are not billed.
    """

    first: Decimal | None = None
    more: Decimal | None = None
    image: Decimal | None = None
    resolution: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    inputs: bool = True


@dataclass(frozen=True, slots=True)
class Model:
    """One row of the catalogue; build one by hand to use a model that is newer than this release.

    `slots` is the number of tasks of its pool that an account may have in flight, `grid` the step of width and height
    in pixels, `references` the number of images it takes, `sends` what every request body also contains.
    """

    name: str
    path: str
    title: str = ""
    family: str = ""
    also: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    hosted: bool = True
    pool: str = "standard"
    slots: int = 24
    output: str = "size"
    grid: int = 16
    maximum_pixels: int | None = None
    references: int = 0
    reference_field: str = "input_image"
    smallest_input: int = 64
    largest_input_megapixels: int = 20
    strict: bool = False
    price: Price | None = None
    sends: Mapping[str, Json] = field(default_factory=dict[str, Json])
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])
    best_for: str = ""
    licence: str = ""
    note: str = ""
    unconfirmed: tuple[str, ...] = ()
    source: str = "given by hand"
    checked: date | None = None

    def reference_names(self) -> tuple[str, ...]:
        """Return the names of the fields for reference images, in order."""
        if not self.references:
            return ()
        if self.reference_field == "images":
            return ("images",)
        rest = (f"{self.reference_field}_{n}" for n in range(2, self.references + 1))
        return (self.reference_field, *rest)

    def paths(self) -> tuple[str, ...]:
        """Return every path at which the guide, the service or a public client expects this model."""
        return (*self.also, self.path) if not self.sends else self.also


def list_models() -> dict[str, Model]:
    """Return every model of the catalogue by name, in the order of the file."""
    return dict(_rows())


def get_model(name: str | Model) -> Model:
    """Look up a model by name or alias; a `Model` is returned as it is.

    Raises `UnknownModelError` with the nearest names.
    """
    if isinstance(name, Model):
        return name
    wanted = name.strip().lower().removeprefix("/v1/")
    row = _names().get(wanted)
    if row is None:
        hint = did_you_mean(wanted, _names()) or "`fluxwerk models` lists them"
        newer = "for a model newer than this release pass fluxwerk.Model(name=..., path=...)"
        raise UnknownModelError(f"The catalogue has no model {name!r} ({hint}); {newer}.")
    return row


def takes_webhooks(model: str | Model) -> bool:
    """Whether a submit to this model may name a webhook; a model that is not in the catalogue may."""
    row = model if isinstance(model, Model) else _names().get(model)
    return row is None or not row.options or "webhook_url" in row.options


def did_you_mean(word: str, known: Mapping[str, object]) -> str:
    """Suggest the nearest known word, or return an empty string."""
    from difflib import get_close_matches  # noqa: PLC0415  (only a mistake pays for it)

    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def check(model: Model, given: Mapping[str, Json]) -> list[Fault]:
    """Return every fault of these fields for this model; a model without options, built by hand, takes any field."""
    if not model.options:
        return []
    faults = [
        Fault(option.name, None, "is required", option.allowed())
        for option in model.options.values()
        if option.required and given.get(option.name) is None
    ]
    for name, value in given.items():
        option = model.options.get(name)
        if option is None:
            hint = did_you_mean(name, model.options)
            faults.append(Fault(name, value, f"{model.name} has no such option", hint))
        elif value is not None and not (option.zero_is_auto and type(value) is int and value == 0):
            faults += _check_value(option, value)
    return faults + _check_area(model, given)


def refuse(model: Model, faults: list[Fault]) -> None:
    """Raise `InvalidUsageError` with all faults if there are any."""
    if faults:
        raise InvalidUsageError(f"The request does not fit {model.name}; nothing was sent:", faults=faults)


def ratio(text: str) -> Decimal | None:
    """Read "16:9" as width over height; `None` for any other text and for ratios beyond 21:9 or 9:21."""
    width, colon, height = text.partition(":")
    if not (colon and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        return None
    if max(len(width), len(height)) > LONGEST_SIDE_OF_RATIO or not int(width) or not int(height):
        return None
    value = Decimal(width) / Decimal(height)
    return value if 1 / WIDEST <= value <= WIDEST else None


def _check_value(option: Option, value: Json) -> Iterator[Fault]:
    kinds, _ = KINDS[option.type]
    right = isinstance(value, kinds) and (isinstance(value, bool) == (option.type == "boolean"))
    if not right or (option.choices and value not in option.choices):
        yield _unfit(option, value)
        return
    if option.type == "ratio" and not option.choices and ratio(value) is None:
        yield Fault(option.name, value, 'must be a ratio such as "16:9", between 21:9 and 9:21')
    if option.type == "url" and not value.startswith(("http://", "https://")):
        yield _unfit(option, value)
    if option.type in ("integer", "number") and not _within(option, value):
        yield _unfit(option, value)
    length = len(value) if isinstance(value, str) else 0
    if option.maximum_length and not (option.minimum_length or 0) <= length <= option.maximum_length:
        yield _unfit(option, value)


def _unfit(option: Option, value: Json) -> Fault:
    return Fault(option.name, "…" if option.type == "secret" else value, f"must be {option.allowed()}")


def _within(option: Option, value: float | Decimal) -> bool:
    if value != value:  # noqa: PLR0124  (not a number)
        return False
    low = option.minimum is None or value >= option.minimum
    high = option.maximum is None or value <= option.maximum
    return low and high and (not option.multiple or value % option.multiple == 0)


def _check_area(model: Model, given: Mapping[str, Json]) -> list[Fault]:
    width, height = given.get("width"), given.get("height")
    if not (model.maximum_pixels and isinstance(width, int) and isinstance(height, int)):
        return []
    if width * height <= model.maximum_pixels:
        return []
    side = int(model.maximum_pixels**0.5)
    return [
        Fault(
            "width × height",
            f"{width}×{height}",
            f"must be at most {model.maximum_pixels} pixels, such as {side}×{side}",
        )
    ]


@cache
def _rows() -> dict[str, Model]:
    import tomllib  # noqa: PLC0415  (with resources a third of the import's time, and only look-ups need them)
    from importlib.resources import files  # noqa: PLC0415

    text = files("fluxwerk").joinpath("catalog/models.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text, parse_float=Decimal)
    return {name: _row(name, row, data) for name, row in data["model"].items()}


@cache
def _names() -> dict[str, Model]:
    named = {alias: model for model in _rows().values() for alias in model.aliases}
    return named | _rows()


def _row(name: str, row: dict[str, Any], data: dict[str, Any]) -> Model:
    family: dict[str, Any] = data["family"][row["family"]]
    merged: dict[str, Any] = {**family, **row, "name": name}
    merged["slots"] = data["pool"][merged["pool"]]["slots"]
    merged["options"] = _options(Model(name, "", **_references(merged)), family, row, data["option"])
    if "price" in row:
        merged["price"] = _price(row["price"])
    for key in ("also", "aliases", "unconfirmed"):
        merged[key] = tuple(merged.get(key, ()))
    known = {column.name for column in fields(Model)} | {"without"}
    strange = set(merged) - known
    if strange:
        raise ValueError(f"models.toml: {name} has unknown columns {sorted(strange)}")
    merged.pop("without", None)
    return Model(**merged)


def _price(columns: dict[str, Any]) -> Price:
    exact = {key: Decimal(columns[key]) for key in ("first", "more", "image") if key in columns}
    tiers = {name: Decimal(value) for name, value in columns.get("resolution", {}).items()}
    return Price(**exact, resolution=tiers, inputs=columns.get("inputs", True))


def _references(merged: dict[str, Any]) -> dict[str, Any]:
    return {key: merged[key] for key in ("references", "reference_field") if key in merged}


def _options(model: Model, family: dict[str, Any], row: dict[str, Any], known: dict[str, Any]) -> dict[str, Option]:
    kind = "images" if model.reference_field == "images" else "image"
    wanted: dict[str, dict[str, Any]] = {name: {"type": kind, "nullable": True} for name in model.reference_names()}
    for source in (family, row):
        for name, column in source.get("options", {}).items():
            wanted[name] = {**wanted.get(name, {}), **column}
    for name in row.get("without", ()):
        del wanted[name]
    ordered = sorted(wanted, key=lambda name: name != "prompt")
    return {name: _option(name, {**known.get(name, {}), **wanted[name]}) for name in ordered}


def _option(name: str, columns: dict[str, Any]) -> Option:
    default: Json = columns.get("default")
    if isinstance(default, Decimal):
        default = float(default)
    complete: dict[str, Any] = {**columns, "default": default, "choices": tuple(columns.get("choices", ()))}
    return Option(name, **complete)
