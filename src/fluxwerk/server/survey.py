"""Images of a submit, decoded and measured in a thread before the flow on the event loop asks for them.

The flow takes no other road without a survey, as it does in process: it then decodes and measures by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

from fluxwerk import imagefile
from fluxwerk.imagefile import Raster
from fluxwerk.types import Json

# Characters; a shorter text is read on the event loop faster than a thread takes it up.
SHORT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What keeps bytes from being an image, or its type and size."""

    fault: str | None
    raster: Raster | None


@dataclass(slots=True)
class Survey:
    """What is known about the images of one submit: the bytes of long texts, and findings by the identity of bytes."""

    decoded: dict[str, bytes] = field(default_factory=dict[str, bytes])
    # The bytes are kept beside their finding, so that no other object takes their identity.
    findings: dict[int, tuple[bytes, Finding]] = field(default_factory=dict[int, tuple[bytes, Finding]])

    async def add_body(self, body: bytes) -> None:
        """Decode and measure the images in a body."""
        if len(body) > SHORT:
            await asyncio.to_thread(self._read, body)

    async def add_image(self, data: bytes) -> None:
        """Measure an image that was fetched."""
        if len(data) > SHORT:
            await asyncio.to_thread(self._measure, data)

    def _read(self, body: bytes) -> None:
        try:
            texts = list(_long_texts(json.loads(body)))
        except (ValueError, RecursionError):
            return
        for text in texts:
            try:
                data = imagefile.read_base64(text)
            except ValueError:
                continue
            self.decoded[text] = data
            self._measure(data)

    def _measure(self, data: bytes) -> None:
        self.findings[id(data)] = data, look_at(data)


_current: ContextVar[Survey | None] = ContextVar("fluxwerk_survey", default=None)


@contextmanager
def opened() -> Generator[Survey]:
    """Keep a survey for the flow that runs in this context."""
    token = _current.set(Survey())
    try:
        yield cast("Survey", _current.get())
    finally:
        _current.reset(token)


def decode(text: str) -> bytes:
    """Decode base64 or a data URI, from the survey if it is there; raises `ValueError`."""
    survey = _current.get()
    found = survey.decoded.get(text) if survey and len(text) > SHORT // 2 else None
    return imagefile.read_base64(text) if found is None else found


def find(data: bytes) -> Finding:
    """Measure an image, from the survey if it is there."""
    survey = _current.get()
    found = survey.findings.get(id(data)) if survey else None
    return found[1] if found else look_at(data)


def look_at(data: bytes) -> Finding:
    """Measure an image."""
    return Finding(imagefile.fault(data), imagefile.measure(data))


def _long_texts(given: Json) -> Iterator[str]:
    if not isinstance(given, dict):
        return
    for value in cast("dict[str, Json]", given).values():
        for text in cast("list[Json]", value) if isinstance(value, list) else [value]:
            if isinstance(text, str) and len(text) > SHORT // 2:
                yield text
