"""The images that requests refer to: known by their hash, read when they are sent, never all at once."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fluxwerk.catalog.images import LARGEST_BYTES
from fluxwerk.catalog.sizes import Size
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.database import Database
from fluxwerk.ledger.job import Job
from fluxwerk.storage import read_file
from fluxwerk.types import Json, Request

MARK = "sha256:"
LONGEST_MARK = len(MARK) + 64
# As base64, over all inputs that are kept at hand.
KEPT_CHARACTERS = 64 * 1024 * 1024
SET_INPUT = """
    insert into inputs (sha256, path, width, height) values (:sha256, :path, :width, :height)
    on conflict (sha256) do update set path = excluded.path
"""


@dataclass(frozen=True, slots=True)
class Input:
    """A local image by its content: where it was found, and its size in pixels."""

    sha256: str
    path: str
    size: Size


class Inputs:
    """The inputs of one ledger; those sent last are kept at hand, up to `kept` characters of base64."""

    def __init__(self, database: Database, kept: int = KEPT_CHARACTERS) -> None:
        self._database = database
        self._kept = kept
        self._held = 0
        self._lock = threading.Lock()
        self._texts: OrderedDict[str, str] = OrderedDict()

    def note(self, found: Input) -> None:
        """Write down where a content lies."""
        width, height = found.size
        with self._database.write() as transaction:
            transaction.run(SET_INPUT, sha256=found.sha256, path=found.path, width=width, height=height)

    def fill_in(self, job: Job) -> Request:
        """Return the job's request with each hash replaced by its image; raises `InvalidUsageError` if one differs."""
        with self._lock:
            fields = {name: self._filled(name, value) for name, value in job.fields.items()}
        return Request(job.model, fields)

    def _filled(self, name: str, value: Json) -> Json:
        if isinstance(value, list):
            return [self._filled(name, item) for item in cast("list[Json]", value)]
        return self._text(name, value.removeprefix(MARK)) if is_mark(value) else value

    def _text(self, name: str, sha256: str) -> str:
        if sha256 in self._texts:
            self._texts.move_to_end(sha256)
            return self._texts[sha256]
        text = base64.b64encode(self._read(name, sha256)).decode("ascii")
        self._texts[sha256] = text
        self._held += len(text)
        while self._held > self._kept and len(self._texts) > 1:
            self._held -= len(self._texts.popitem(last=False)[1])
        return text

    def _read(self, name: str, sha256: str) -> bytes:
        with self._database.read() as transaction:
            row = transaction.one("select path from inputs where sha256 = :sha256", sha256=sha256)
        path = Path(row["path"]) if row else Path()
        try:
            data = read_file(path, LARGEST_BYTES)
        except OSError as error:
            raise InvalidUsageError("", faults=[Fault(name, str(path), f"cannot be read: {error.strerror}")]) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            fault = Fault(name, str(path), "has changed since it was planned", "restore it, or plan its line again")
            raise InvalidUsageError("", faults=[fault])
        return data


def is_mark(value: Json) -> bool:
    """Whether a field's value stands for a local image."""
    return isinstance(value, str) and len(value) == LONGEST_MARK and value.startswith(MARK)


def needs_files(job: Job) -> bool:
    """Whether files have to be read before the job can be submitted."""
    return any(
        is_mark(value) or (isinstance(value, list) and any(is_mark(item) for item in cast("list[Json]", value)))
        for value in job.fields.values()
    )
