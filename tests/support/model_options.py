"""The options of each model as types; `python tests/support/model_options.py` writes the module from the catalogue.

A model whose options are those of another shares its class.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model, Option
from fluxwerk.client.inputs import ModelOptions

MODULE = Path(__file__).parents[2] / "src" / "fluxwerk" / "client" / "options.py"
TYPES = {
    "string": "str",
    "secret": "str",
    "url": "str",
    "ratio": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "image": "ImageInput",
}
HEAD = '''"""The options of each model as types; written by `python tests/support/model_options.py` from the catalogue.

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
'''
MAKING = '''

class Making(Protocol[R_co]):
    """A method that makes something of a prompt, with the options of the model that it names."""
'''
CALL = """
    @overload
    def __call__(self, prompt: str | None = None, *, model: Literal[{names}], **wanted: Unpack[{options}]) -> R_co: ...
"""
TAIL = '''
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
'''


def write() -> str:
    """Return the text of the module, which `_format` makes presentable."""
    groups: dict[tuple[str, ...], list[Model]] = {}
    for model in catalog.list_models().values():
        groups.setdefault(_fields(model), []).append(model)
    text = HEAD
    for fields, models in groups.items():
        others = " and of the models that take the same" if models[1:] else ""
        text += f"\n\nclass {_class_of(models[0])}(CallOptions, total=False):\n"
        text += f'    """The options of {models[0].name}{others}."""\n\n'
        text += "".join(f"    {field}\n" for field in fields)
    text += MAKING
    for models in groups.values():
        known = [name for model in models for name in (model.name, *model.aliases)]
        text += CALL.format(names=", ".join(f'"{name}"' for name in known), options=_class_of(models[0]))
    return text + TAIL


def _fields(model: Model) -> tuple[str, ...]:
    fields = [f"{option.name}: {_type_of(option)}" for option in model.options.values() if _is_named(option)]
    if model.references:
        fields.append("images: Sequence[ImageInput]")
    if "mask" in model.options:
        fields.append("mask_is: MaskIs")
    return tuple(fields)


def _is_named(option: Option) -> bool:
    # The prompt has a parameter of its own, and a list of images is `images`.
    return option.name in ModelOptions.__annotations__


def _type_of(option: Option) -> str:
    kind = f"Literal[{', '.join(map(repr, option.choices))}]" if option.choices else TYPES[option.type]
    return f"{kind} | None"


def _class_of(model: Model) -> str:
    words = model.name.removeprefix("flux-").replace(".", "").split("-")
    return "Flux" + "".join(word.capitalize() for word in words) + "Options"


def _format(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(MODULE), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    MODULE.write_text(_format(write()), encoding="utf-8")
