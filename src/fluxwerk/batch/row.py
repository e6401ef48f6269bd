"""From a manifest's row to the jobs it asks for: columns into options, files into hashes, every fault with its line."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import cast

from fluxwerk import catalog
from fluxwerk.batch.manifest import ManifestLine
from fluxwerk.batch.separated import LONGEST_FIELD
from fluxwerk.batch.template import fault_of_name
from fluxwerk.catalog import prices
from fluxwerk.catalog.images import LARGEST_BYTES
from fluxwerk.catalog.rows import IMAGE_TYPES, Model
from fluxwerk.client.inputs import EncodedImage, attach, compose
from fluxwerk.errors import Fault, InvalidUsageError, UnknownPriceError
from fluxwerk.ledger.inputs import MARK, Input
from fluxwerk.ledger.plans import PlannedJob
from fluxwerk.storage import read_file
from fluxwerk.types import Json, Request

# What a row may say beside the options of its model.
ROW_COLUMNS = ("prompt", "model", "size", "images", "count", "output", "tag")
CHECKED_COLUMNS = frozenset({"count", "output", "tag"})
# What each row has of its own, in its request, and beside it.
PER_ROW_FIELDS = frozenset({"prompt", "seed"})
UNSHARED_COLUMNS = CHECKED_COLUMNS | PER_ROW_FIELDS
KEPT_SHAPES = 10_000
LONGEST_SHAPE = 1000
MOST_IMAGES = 10_000
LONGEST_TAG = 200
LONGEST_NUMBER = 9
# What one word turns on for every model, and the switch that some models have instead.
UPSAMPLING, SWITCH = "prompt_upsampling", "disable_pup"
REMOTE = ("http://", "https://", "data:")
# What says where an answer goes, not what is wanted.
NO_FILE = "there is no such file"
UNHASHED = frozenset({"webhook_url", "webhook_secret"})
# Made once: json.dumps makes an encoder for each call with options of its own.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=float).encode
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=float).encode
# pandas writes a whole number of a column with gaps as 7.0; three zeros would be a thousand.  Excel writes decimals
# with a comma in much of Europe.
WHOLE_WITH_ZEROS = re.compile(r"(?<=\d)[.,]00?$")
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
BOOLEAN_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a row is silent; `assumed` is the price in credits of a model whose price is not public."""

    model: str
    folder: Path
    options: Mapping[str, Json]
    assumed: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What rows that differ in nothing but their prompt and seed share: the other fields, and the price in credits."""

    fields: Mapping[str, Json]
    estimate: Decimal | None


class Rows:
    """Reads rows against the catalogue; keeps of each distinct input image only its hash and size.

    Of images and of rows that were read, `kept` are remembered at most.
    """

    def __init__(self, defaults: Defaults, kept: int = KEPT_SHAPES) -> None:
        self._defaults = defaults
        self._kept = kept
        self._shapes: dict[str, Shape] = {}
        self._seen: dict[tuple[str, str, bool], Input | Fault] = {}
        self._noted: set[str] = set()
        self._models: dict[str, Model] = {}
        self.found: list[Input] = []
        self.pools: dict[str, int] = {}

    def planned_jobs(self, line: ManifestLine) -> Iterator[PlannedJob]:
        """Turn a row into a planned job for each of its images; raises `InvalidUsageError` with every fault in it."""
        columns = {**self._defaults.options, **line.columns}
        model = self._model(str(columns.get("model", self._defaults.model)))
        faults = list(_own_faults(columns)) if not _is_plain(columns) else []
        whole, estimate = self._known(model, columns, faults) or self._composed(model, columns, faults)
        self.pools[model.pool] = model.slots
        count = _whole(columns.get("count", 1))
        for item in range(count):
            fields = _numbered(model, whole, item)
            text, digest = _written(model.name, fields)
            yield PlannedJob(
                line=line.number,
                item=line.variant * count + item + 1,
                model=model.name,
                pool=model.pool,
                request=text,
                hash=digest,
                estimate=estimate,
                output=_output(columns.get("output"), item, count),
                tag=columns.get("tag"),
            )

    def _composed(
        self, model: Model, columns: Mapping[str, Json], faults: list[Fault]
    ) -> tuple[Mapping[str, Json], Decimal | None]:
        """Check a row in every respect, and remember what others may share with it."""
        options, wrong = self._options(model, columns)
        request = _composed(model, columns, options, faults + wrong)
        estimate = self._estimate(request, model)
        if len(self._shapes) >= self._kept:
            self._shapes.clear()
        shared = {name: value for name, value in request.fields.items() if name not in PER_ROW_FIELDS}
        if shape := _shape(model, columns):
            self._shapes[shape] = Shape(shared, estimate)
        return request.fields, estimate

    def _known(
        self, model: Model, columns: Mapping[str, Json], faults: list[Fault]
    ) -> tuple[Mapping[str, Json], Decimal | None] | None:
        """Make a request like that of an earlier row, if this one differs in prompt and seed alone and has no fault."""
        shape = self._shapes.get(_shape(model, columns) or "")
        if shape is None or faults:
            return None
        own: dict[str, Json] = {"prompt": str(columns["prompt"])} if "prompt" in columns else {}
        if "seed" in columns:
            option = model.options.get("seed")
            own["seed"] = _converted(option.type if option else "", columns["seed"])
        wrong = any(fault.field in PER_ROW_FIELDS for fault in catalog.check(model, own))
        return None if wrong else ({**shape.fields, **own}, shape.estimate)

    def _model(self, name: str) -> Model:
        if name not in self._models:
            self._models[name] = catalog.get_model(name)
        return self._models[name]

    def _options(self, model: Model, columns: Mapping[str, Json]) -> tuple[dict[str, Json], list[Fault]]:
        options: dict[str, Json] = {}
        faults: list[Fault] = []
        for name, value in columns.items():
            if name in ROW_COLUMNS:
                continue
            option = model.options.get(name)
            if option is None and name == UPSAMPLING and SWITCH in model.options:
                # The client renames this one, so its text has to become a boolean first.
                options[name] = _converted("boolean", value)
                if not isinstance(options[name], bool):
                    faults.append(Fault(name, value, "must be true or false"))
            elif option and option.type in IMAGE_TYPES:
                options[name] = self._attached(model, name, value, faults)
            else:
                options[name] = _converted(option.type if option else "", value)
        if "images" in columns:
            options["images"] = self._attached(model, "images", columns["images"], faults, many=True)
        if "size" in columns:
            faults += _place_size(str(columns["size"]), options)
        return options, faults

    def _attached(self, model: Model, name: str, value: Json, faults: list[Fault], *, many: bool = False) -> Json:
        texts = cast("list[Json]", value) if isinstance(value, list) else str(value).split(";") if many else [value]
        attached = [self._attach(model, name, str(text).strip()) for text in texts]
        faults += [one for one in attached if isinstance(one, Fault)]
        good = [one for one in attached if isinstance(one, EncodedImage)]
        return good if many or isinstance(value, list) else next(iter(good), None)

    def _attach(self, model: Model, name: str, text: str) -> EncodedImage | Fault:
        if text.startswith(REMOTE):
            return EncodedImage(text) if not text.startswith("data:") else attach(text, name, model)
        if "\0" in text:
            return Fault(name, text, NO_FILE)
        path = str((self._defaults.folder / text).resolve())
        # A mask has to mark something, an image has not.
        key = path, model.name, name == "mask"
        if key not in self._seen:
            if len(self._seen) >= self._kept:
                self._seen.clear()
                self._noted.clear()
            self._seen[key] = _measured(path, name, model)
        found = self._seen[key]
        if isinstance(found, Fault):
            return Fault(name, text, found.allowed, found.hint)
        if found.sha256 not in self._noted:
            self._noted.add(found.sha256)
            self.found.append(found)
        return EncodedImage(MARK + found.sha256, found.size)

    def _estimate(self, request: Request, model: Model) -> Decimal | None:
        try:
            return prices.estimate_request(request, model)
        except UnknownPriceError:
            return self._defaults.assumed


def request_hash(model: str, fields: Mapping[str, Json]) -> str:
    """Hash what is wanted: two requests with the same model, options and images have the same hash."""
    return _written(model, fields)[1]


def _written(model: str, fields: Mapping[str, Json]) -> tuple[str, str]:
    """Write a request as the ledger keeps it, and hash it; as a rule both are of one text, which is made once."""
    text = _canonical(fields)
    wanted = text
    if not UNHASHED.isdisjoint(fields):
        wanted = _canonical({name: value for name, value in fields.items() if name not in UNHASHED})
    whole = f"[{_canonical(model)},{wanted}]"
    return text, hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()


def dump(fields: Mapping[str, Json]) -> str:
    """Write fields as the ledger keeps them."""
    return _compact(fields)


def _shape(model: Model, columns: Mapping[str, Json]) -> str | None:
    """Tell apart rows that differ in more than what each row has of its own; `None` if it is too long to remember."""
    rest = {name: value for name, value in columns.items() if name not in UNSHARED_COLUMNS}
    # As Python writes it, since 1 is not true, nor "1".
    shape = f"{model.name} {rest!r}"
    return shape if len(shape) <= LONGEST_SHAPE else None


def _composed(model: Model, columns: Mapping[str, Json], options: dict[str, Json], faults: list[Fault]) -> Request:
    images = options.pop("images", ())
    prompt = columns.get("prompt")
    try:
        request = compose(model, None if prompt is None else str(prompt), images=images, options=options)
    except InvalidUsageError as fault:
        named = {known.field for known in faults}
        faults += [wrong for wrong in fault.faults if wrong.field not in named]
    else:
        if not faults:
            return request
    raise InvalidUsageError("", faults=faults)


def _is_plain(columns: Mapping[str, Json]) -> bool:
    """Whether there is nothing to look for in a row's own columns, as in most rows of a long manifest."""
    prompt = columns.get("prompt")
    return CHECKED_COLUMNS.isdisjoint(columns) and isinstance(prompt, str) and len(prompt) <= LONGEST_FIELD


def _own_faults(columns: Mapping[str, Json]) -> Iterator[Fault]:
    count, output, tag = (columns.get(name) for name in ("count", "output", "tag"))
    prompt = columns.get("prompt")
    if count is not None and not 0 < _whole(count) <= MOST_IMAGES:
        yield Fault("count", count, f"must be a whole number from 1 to {MOST_IMAGES}")
    if output is not None and (isinstance(output, bool) or not isinstance(output, str | int)):
        yield Fault("output", output, "must be one file name, such as fox.png")
    elif output is not None and (wrong := fault_of_name(str(output))):
        yield Fault("output", output, wrong)
    if tag is not None and (not isinstance(tag, str) or len(tag) > LONGEST_TAG):
        yield Fault("tag", tag, f"must be a text of at most {LONGEST_TAG} characters")
    if isinstance(prompt, bytes | list | dict):
        yield Fault("prompt", None, "must be a text")
    elif isinstance(prompt, str) and len(prompt) > LONGEST_FIELD:
        yield Fault("prompt", f"{len(prompt)} characters", f"must have at most {LONGEST_FIELD}, which no model reads")


def _place_size(text: str, options: dict[str, Json]) -> Iterator[Fault]:
    width, _, height = text.lower().replace("×", "x").partition("x")
    sides = _whole(width.strip()), _whole(height.strip())
    if min(sides) < 0:
        yield Fault("size", text[:LONGEST_TAG], "must look like 1024x768")
    elif "width" in options or "height" in options:
        yield Fault("size", text, "is given twice: once as size and once as width or height")
    else:
        options["width"], options["height"] = sides


def _whole(value: Json) -> int:
    """Read a whole number as a cell writes it; -1 if it is none, or longer than any that is meant."""
    text = WHOLE_WITH_ZEROS.sub("", str(value))
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else -1


def _converted(kind: str, value: Json) -> Json:
    """Read a cell as its option's type; what does not fit is left for the catalogue to judge."""
    if isinstance(value, float) and kind == "integer" and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    try:
        if kind == "integer":
            return int(WHOLE_WITH_ZEROS.sub("", text))
        if kind == "number":
            return float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        return value
    return BOOLEAN_WORDS.get(text.lower(), value) if kind == "boolean" else value


def _measured(path: str, name: str, model: Model) -> Input | Fault:
    try:
        data = read_file(path, LARGEST_BYTES)
    except FileNotFoundError:
        return Fault(name, path, NO_FILE)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EFBIG:
            return Fault(name, path, "must be at most 20 MB", "shrink it or save it as JPEG")
        return Fault(name, path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    # The ledger keeps the path and the hash of the file, and sends its bytes.
    found = attach(data, name, model, as_it_is=True)
    if isinstance(found, Fault):
        return found
    assert found.size is not None
    return Input(hashlib.sha256(data).hexdigest(), path, found.size)


def _numbered(model: Model, fields: Mapping[str, Json], item: int) -> Mapping[str, Json]:
    """Give each further image of a row a seed of its own; without a seed the service chooses."""
    seed = fields.get("seed")
    if not item or seed is None or "seed" not in model.options:
        return fields
    return {**fields, "seed": seed + item}


def _output(wanted: Json, item: int, count: int) -> str | None:
    if wanted is None:
        return None
    text = str(wanted)
    if count == 1:
        return text
    path = Path(text)
    return (path.parent / f"{path.stem}-{item + 1}{path.suffix}").as_posix()


def named(faults: Iterable[Fault], line: int) -> list[Fault]:
    """Say of each fault on which line it is."""
    return [Fault(f"line {line}, {fault.field}", fault.value, fault.allowed, fault.hint) for fault in faults]
