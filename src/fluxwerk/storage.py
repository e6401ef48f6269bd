"""Whole or not at all: bytes reach their final name only when every one of them is in the storage.

A storage is a local folder, or a bucket of S3, Google Cloud or Azure through obstore (the extra `storage`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from fluxwerk.errors import Fault, InvalidUsageError, StorageError
from fluxwerk.protocol.trust import redact

# Of the final name, so that the temporary one is no longer than a folder allows.
SHOWN = 40
LONGEST_REASON = 300
REMOTE = ("s3://", "gs://", "az://", "memory://")
# What is wrong with one name, and not with the folder.
NEVER = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL})
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})


class Storage(Protocol):
    """Where images are kept, under names with forward slashes."""

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        """Store the bytes whole and return their address.

        Raises `FileExistsError` if the name is taken and `overwrite` is false, `StorageError` if nothing can be stored.
        """
        ...

    def get(self, name: str) -> bytes | None:
        """Read what is stored under a name, or return `None`."""
        ...


class Folder:
    """A local folder; every file in it is flushed, and so is the folder."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def __repr__(self) -> str:
        return f"Folder({str(self.root)!r})"

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        """Write the file under a temporary name, flush it, and give it its name if that is free."""
        target = self._inside(name)
        try:
            save(data, target, overwrite=overwrite, lasting=True)
        except FileExistsError:
            if not target.parent.is_dir():
                raise InvalidUsageError(
                    "", faults=[Fault("output", name, "lies below a file, where no folder can be")]
                ) from None
            raise
        except OSError as trouble:
            if trouble.errno in NEVER and self.root.is_dir():
                raise InvalidUsageError(
                    "", faults=[Fault("output", name, f"can be no file here: {trouble.strerror}")]
                ) from None
            raise StorageError(f"{target} cannot be written: {trouble.strerror or trouble}.") from None
        return str(target)

    def get(self, name: str) -> bytes | None:
        """Read a file, if it is there."""
        try:
            return self._inside(name).read_bytes()
        except OSError:
            return None

    def _inside(self, name: str) -> Path:
        root = self.root.resolve()
        target = (root / name).resolve()
        if not target.is_relative_to(root) or target == root:
            raise InvalidUsageError("", faults=[Fault("name", name, f"leads out of {self.root}")])
        return target


class Bucket:
    """A bucket behind obstore, with an optional prefix."""

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import from_url  # noqa: PLC0415  (an extra)
        except ModuleNotFoundError:  # pragma: no cover  (the extra is there wherever the tests run)
            raise InvalidUsageError(f"{url} needs one more package: pip install 'fluxwerk[storage]'") from None
        self._url = url.rstrip("/")
        with _explained(url):
            self._store: Any = from_url(url)

    def __repr__(self) -> str:
        return f"Bucket({self._url!r})"

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        """Put the object in one request, which the store takes whole or refuses."""
        import obstore  # noqa: PLC0415

        try:
            with _explained(self._url):
                obstore.put(self._store, name, data, mode="overwrite" if overwrite else "create")
        except FileNotFoundError:
            raise StorageError(f"There is no bucket at {self._url}; make it, or name another.") from None
        return f"{self._url}/{name}"

    def get(self, name: str) -> bytes | None:
        """Read an object, if it is there."""
        import obstore  # noqa: PLC0415

        try:
            with _explained(self._url):
                return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None


def open_storage(place: str | os.PathLike[str]) -> Storage:
    """Open a folder, or a bucket by its URL: s3://bucket/prefix, gs://…, az://….

    Raises `InvalidUsageError` for any other URL, and where the extra `storage` is missing.
    """
    text = os.fspath(place)
    if text.startswith(REMOTE):
        return Bucket(text)
    if "://" in text:
        raise InvalidUsageError(
            "", faults=[Fault("storage", text, f"must be a folder or start with {', '.join(REMOTE[:3])}")]
        )
    return Folder(text)


def save(data: bytes, path: str | os.PathLike[str], *, overwrite: bool = True, lasting: bool = False) -> Path:
    """Write a file under a temporary name in the same folder, flush it, rename it, and return its path.

    A crash at any moment leaves the old file or the new one, never half of one.  Without `overwrite` a name that is
    taken raises `FileExistsError`.  With `lasting` the folder is flushed too, and every one around it that was made for
    it, so a power cut does not lose the name.
    """
    return stream([data], path, overwrite=overwrite, lasting=lasting)


def stream(
    parts: Iterable[bytes], path: str | os.PathLike[str], *, overwrite: bool = True, lasting: bool = False
) -> Path:
    """Write a file part by part, whole or not at all, as `save` does."""
    target = Path(path)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name[:SHOWN]}.{token_hex(8)}.part"
    try:
        with part.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            part.replace(target)
        else:
            _name(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if lasting:
        # A folder that was just made is a name in the one around it.
        for folder in (target.parent, *(new.parent for new in made)):
            _flush_folder(folder)
    return target


def give_name(part: Path, target: Path) -> None:
    """Give a whole file its lasting name; raises `FileExistsError` if that is taken."""
    _name(part, target)
    _flush_folder(target.parent)


def _name(part: Path, target: Path) -> None:
    """Give a file its name unless that is taken; a link decides in one step where the file system has links."""
    try:
        target.hardlink_to(part)
    except OSError as trouble:
        if trouble.errno not in NO_LINKS:
            raise
        if target.exists():  # pragma: no cover  (a file system without links, such as FAT)
            raise FileExistsError(errno.EEXIST, "exists already", str(target)) from None
        part.replace(target)  # pragma: no cover
    else:
        part.unlink()


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # pragma: no cover
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _explained(url: str) -> Generator[None]:
    """Turn the troubles of a bucket into ours: taken, missing, or not to be written now."""
    import obstore.exceptions as known  # noqa: PLC0415

    try:
        yield
    except known.AlreadyExistsError:
        raise FileExistsError(errno.EEXIST, "exists already", url) from None
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "is not there", url) from None
    except known.BaseError as trouble:
        # What follows the first line is for the library's authors.
        reason = redact(str(trouble).partition("\n")[0])[:LONGEST_REASON]
        raise StorageError(f"{url} takes nothing now; check its rights and network. {reason}") from None
