"""What came with a request at a door: fields and files, from JSON or from a multipart form."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import cast

from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

from fluxwerk.server.doors.refusal import RefusedError
from fluxwerk.types import Json

MOST_FIELDS = 100
# `image[]` and `image[0]` are `image`, as the libraries of forms write lists.
LISTED = re.compile(r"\[\d{0,3}\]$")


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a request, and its files in their order; a form's fields are all texts."""

    fields: dict[str, Json] = field(default_factory=dict[str, Json], repr=False)
    files: dict[str, list[bytes]] = field(default_factory=dict[str, "list[bytes]"], repr=False)


def read(body: bytes, content_type: str) -> Form:
    """Read a body; raises `RefusedError`."""
    if content_type.lower().startswith("multipart/form-data"):
        return _multipart(body, content_type)
    try:
        given: Json = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise RefusedError(400, "validation_error", "The body is not JSON, and not a multipart form.") from None
    if not isinstance(given, dict):
        raise RefusedError(400, "validation_error", "The body must be a JSON object.")
    return Form(cast("dict[str, Json]", given))


def _multipart(body: bytes, content_type: str) -> Form:
    form = Form()

    def add_field(one: Field) -> None:
        form.fields[_name(one.field_name)] = (one.value or b"").decode("utf-8", "replace")

    def add_file(one: File) -> None:
        one.file_object.seek(0)
        form.files.setdefault(_name(one.field_name), []).append(one.file_object.read())

    # The body is in memory and counted, so its files need no disk.
    bounds = {"MAX_FIELDS": MOST_FIELDS, "MAX_MEMORY_FILE_SIZE": len(body) + 1}
    try:
        parser = create_form_parser({"Content-Type": content_type.encode("latin-1")}, add_field, add_file, bounds)
        parser.write(body)
        parser.finalize()
    except FormParserError as fault:
        raise RefusedError(400, "validation_error", f"The multipart form cannot be read: {fault}") from None
    return form


def _name(name: bytes | None) -> str:
    return LISTED.sub("", (name or b"").decode("utf-8", "replace"))
