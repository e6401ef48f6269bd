"""The page's own files, served as they are written: modules, one style sheet, and its libraries."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).with_name("static")
# Pages at the root, by path.
PAGES = {"/": "index.html", "/ops": "ops.html"}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# The page loads from this server and from nowhere else; data: is for previews of images that are not finished.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # A file is asked for again with its tag, so that a new release is never mixed with an old one.
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file in memory, with its compressed form."""

    content_type: str
    body: bytes
    compressed: bytes
    tag: str


def load() -> Iterator[tuple[str, PageFile]]:
    """Yield every file with the path at which it is served."""
    for file in sorted(STATIC.rglob("*")):
        kind = TYPES.get(file.suffix)
        if kind is None or file.name in PAGES.values():
            continue
        yield f"/page/{file.relative_to(STATIC).as_posix()}", _read(file, kind)
    for path, name in PAGES.items():
        yield path, _read(STATIC / name, TYPES[".html"])


def _read(file: Path, content_type: str) -> PageFile:
    body = file.read_bytes()
    compressed = gzip.compress(body, mtime=0)
    return PageFile(content_type, body, compressed, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
