"""Which files an assistant may have read: those of the images' own folder, of the client's roots, and of `--read`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from fluxwerk.errors import Fault, InvalidUsageError

REMOTE = ("http://", "https://", "data:")


def folders_of(roots: Iterable[str]) -> list[Path]:
    """Read the folders that a client's roots name; other roots than files are left out."""
    paths = (_path_of(root) for root in roots)
    return [path.resolve() for path in paths if path is not None]


def locate(name: str, text: str, folders: Sequence[Path]) -> str:
    """Return an image as a link, or as the path of a file that may be read; raises `InvalidUsageError`.

    A relative path is looked up in each folder, and links are followed before the folder counts.
    """
    if text.startswith(REMOTE):
        return text
    given = _path_of(text) if text.startswith("file:") else Path(text).expanduser()
    if given is None:
        raise _refused(name, text, "is no file of this machine", "give a path, a link or a data URI")
    for folder in folders:
        path = (folder / given).resolve()
        if path.is_relative_to(folder) and path.is_file():
            return str(path)
    inside = any((folder / given).resolve().is_relative_to(folder) for folder in folders)
    if inside:
        raise _refused(name, text, "is not there", f"look into {', '.join(map(str, folders))}")
    hint = f"it must lie in one of {', '.join(map(str, folders))}; a person can add one with --read"
    raise _refused(name, text, "may not be read", hint)


def _path_of(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    return Path(url2pathname(unquote(parts.path)))


def _refused(name: str, text: str, allowed: str, hint: str) -> InvalidUsageError:
    return InvalidUsageError("", faults=[Fault(name, text, allowed, hint)])
