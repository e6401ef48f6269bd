"""The names of files: from a template such as {index:05}-{model}-{seed}.{ext}, never outside the folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from fluxwerk.errors import Fault, InvalidUsageError

DEFAULT_TEMPLATE = "{index:05}-{model}-{seed}.{ext}"
TEMPLATE_FIELDS = ("index", "line", "item", "model", "seed", "tag", "hash", "ext")
LONGEST_NAME = 1024
LONGEST_PART = 200
LONGEST_FACT = 60
# Characters that some file system or object store refuses, or that a shell misreads.
STRANGE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_template(template: str, *, overwrite: bool = False) -> str:
    """Return a template that names no unknown field and cannot lead out of the folder; raises `InvalidUsageError`.

    With `overwrite` it has to name the index: equal requests have one hash, and the second would replace the first.
    """
    # The tag is as long as one can be, so that no name is found to be too long when its image is paid for.
    sample = {"index": 1, "line": 1, "item": 1, "model": "m", "seed": 1, "hash": "h", "ext": "png"}
    sample["tag"] = "t" * LONGEST_FACT
    fields: list[str] = []
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        strange = [name for name in fields if name not in TEMPLATE_FIELDS]
        wrong = f"knows only {', '.join(TEMPLATE_FIELDS)}" if strange else fault_of_name(template.format(**sample))
    except (ValueError, KeyError, IndexError) as error:
        wrong = f"cannot be read: {error}"
    if not wrong and not {"index", "hash"} & set(fields):
        wrong = "must hold {index} or {hash}, so that no two images get the same name"
    if not wrong and overwrite and "index" not in fields:
        wrong = "must hold {index} where files are overwritten, since equal requests have the same {hash}"
    if wrong:
        raise InvalidUsageError("", faults=[Fault("--name", template, wrong, f"the default is {DEFAULT_TEMPLATE}")])
    return template


def file_name(template: str, facts: Mapping[str, Any], output: str | None = None) -> str:
    """Name one image: by what the manifest asks for, or else by the template; an ending is added where none is."""
    ext = facts["ext"]
    if output is not None:
        return output if "." in output.rsplit("/", 1)[-1] else f"{output}.{ext}"
    return template.format(**{name: _plain(value) for name, value in facts.items()})


def beside(name: str, number: int) -> str:
    """Name a file beside one that is taken: fox.png becomes fox-2.png."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{number}.{suffix}" if dot and "/" not in suffix else f"{name}-{number}"


def fault_of_name(name: str) -> str | None:
    """Say why a name may not be used inside the folder, or `None` if it may."""
    parts = name.split("/")
    if not name or len(name) > LONGEST_NAME or any(len(part.encode()) > LONGEST_PART for part in parts):
        return f"must have 1 to {LONGEST_NAME} characters, and {LONGEST_PART} bytes between slashes"
    if STRANGE.search(name):
        return 'must not hold any of < > : " | ? * \\ or control characters'
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "must stay inside the folder: no leading slash, no empty part, no . or .."
    if any(RESERVED.fullmatch(part) or part != part.strip() or part.endswith(".") for part in parts):
        return "must not be a name that Windows keeps for itself, nor begin or end with a blank, nor end with a dot"
    return None


def _plain(value: Any) -> Any:
    """Keep a fact from making folders of its own."""
    if not isinstance(value, str):
        return value
    # Cut by bytes: a name of 255 of them is the most that a folder takes, and a template joins several facts.
    plain = STRANGE.sub("_", value).replace("/", "_").encode("utf-8", "replace")[:LONGEST_FACT]
    whole = plain.decode("utf-8", "ignore").strip(" .") or "_"
    return f"_{whole}" if RESERVED.fullmatch(whole) else whole
