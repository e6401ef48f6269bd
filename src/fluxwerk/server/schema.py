"""The body of a submit: one pydantic model for each row of the catalogue.

FastAPI publishes their JSON schemas, and 422 bodies have the shape of pydantic's errors, as the live service has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic import create_model as create

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model, Option
from fluxwerk.types import Json

TYPES: dict[str, Any] = {
    "string": str,
    "secret": str,
    "image": str,
    "images": list[str] | str,
    "url": str,
    "ratio": str,
    "integer": int,
    "number": float,
    "boolean": bool,
}


class InvalidFieldsError(Exception):
    """The body of a submit is invalid; `detail` has the shape of FastAPI's 422."""

    def __init__(self, detail: list[dict[str, Json]]) -> None:
        super().__init__(detail)
        self.detail = detail


def read(model: Model, body: bytes) -> dict[str, Json]:
    """Read the body of a submit into checked fields with the model's defaults; raises `InvalidFieldsError`."""
    return check(model, parse(body))


def check(model: Model, given: Json) -> dict[str, Json]:
    """Check a parsed body and fill in the model's defaults; raises `InvalidFieldsError`."""
    return _checked(request_model(model.name), given)


def check_some(model: Model, given: Mapping[str, Json]) -> dict[str, Json]:
    """Check the given fields alone, none of them required; raises `InvalidFieldsError`."""
    fields: dict[str, Any] = {name: _field(model.options[name]) for name in given}
    optional = {name: (kind, Field(None)) for name, (kind, _) in fields.items()}
    return _checked(create("Some", **cast("dict[str, Any]", optional)), dict(given))


def parse(body: bytes) -> Json:
    """Read a body as JSON; raises `InvalidFieldsError`."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as fault:
        position, reason = getattr(fault, "pos", 0), getattr(fault, "msg", str(fault))
        context = {"error": reason}
        entry = {"type": "json_invalid", "loc": ["body", position], "msg": "JSON decode error", "ctx": context}
        raise InvalidFieldsError([entry]) from None


def entries(fault: ValidationError) -> list[dict[str, Json]]:
    """Write pydantic's errors as FastAPI does, without the values."""
    return [_entry(error) for error in fault.errors(include_url=False, include_input=False)]


def _checked(kind: type[BaseModel], given: Json) -> dict[str, Json]:
    try:
        fields = kind.model_validate(given).model_dump()
    except ValidationError as fault:
        raise InvalidFieldsError(entries(fault)) from None
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    wrong = [(name, "lone surrogates") for name, value in texts.items() if not _is_unicode(value)]
    # No PostgreSQL keeps it, and a task is the same wherever it is kept.
    wrong += [(name, "NUL characters") for name, value in texts.items() if "\0" in value]
    if wrong:
        text = "Input should be a valid string without {}"
        raise InvalidFieldsError(
            [{"type": "string_unicode", "loc": ["body", name], "msg": text.format(what)} for name, what in wrong]
        )
    return {name: value for name, value in fields.items() if value is not None}


@cache
def request_model(name: str) -> type[BaseModel]:
    """Build the pydantic model for the row with this name."""
    model = catalog.get_model(name)
    fields: dict[str, Any] = {option.name: _field(option) for option in model.options.values()}
    title = "".join(part.capitalize() for part in name.replace(".", "-").split("-")) + "Inputs"
    return create(title, __config__=ConfigDict(extra="forbid" if model.strict else "ignore"), **fields)


def _field(option: Option) -> tuple[Any, Any]:
    kind: Any = Literal[option.choices] if option.choices else TYPES[option.type]
    bounds: dict[str, Any] = {
        "ge": _number(option.minimum),
        "le": _number(option.maximum),
        "multiple_of": option.multiple,
        "min_length": option.minimum_length,
        "max_length": option.maximum_length,
        "pattern": "^https?://" if option.type == "url" else None,
    }
    kind = Annotated[kind, Field(**{name: value for name, value in bounds.items() if value is not None})]
    if option.type == "ratio" and not option.choices:
        kind = Annotated[kind, AfterValidator(_ratio)]
    if option.nullable or option.zero_is_auto:
        kind = kind | None
    if option.zero_is_auto:
        kind = Annotated[kind, BeforeValidator(_zero_is_auto)]
    extra: dict[str, Any] = {"description": option.note or None}
    return kind, Field(... if option.required else option.default, **extra)


def _number(bound: Decimal | int | None) -> float | int | None:
    """Return a bound as a JSON number; a Decimal would be published as a string."""
    return float(bound) if isinstance(bound, Decimal) else bound


def _zero_is_auto(value: Json) -> Json:
    return None if type(value) is int and value == 0 else value


def _ratio(value: str) -> str:
    if catalog.ratio(value) is None:
        raise ValueError('should be a ratio such as "16:9", between 21:9 and 9:21')
    return value


def _is_unicode(text: str) -> bool:
    # JSON can escape one half of a surrogate pair, which cannot be written as UTF-8.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entry(error: Any) -> dict[str, Json]:
    entry: dict[str, Json] = {"type": error["type"], "loc": ["body", *error["loc"]], "msg": error["msg"]}
    if error.get("ctx"):
        entry["ctx"] = {name: str(value) for name, value in error["ctx"].items()}
    return entry


def _no_constant(text: str) -> Callable[[], None]:
    raise ValueError(f"{text} is not JSON")
