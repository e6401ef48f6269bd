"""Storages write whole or not at all: bytes reach their final name only when every one of them is stored.

A storage is a local folder, or a bucket of S3, Google Cloud or Azure through obstore (the extra `storage`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, Protocol

from fluxwerk import imagefile
from fluxwerk.errors import Fault, InvalidUsageError, StorageError
from fluxwerk.protocol.trust import redact

# Of the final name, so that the temporary one is no longer than a folder allows.
NAME_PREFIX = 40
LONGEST_REASON = 300
SIGNING = ("s3://", "gs://", "az://")
REMOTE = (*SIGNING, "memory://")
# A store says it again to whoever follows a link.
CONTENT_TYPES = {suffix: kind for kind, suffix in imagefile.SUFFIX.items()}
# What is wrong with one name, and not with the folder.
BAD_NAME = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL})
# What does not pass by itself, as a full disk or a lost network may.
NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP})
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})


BELOW_A_FILE = "lies below a file, where no folder can be"
PROBE = "fluxwerk-write-test"


class Storage(Protocol):
    """Where images are kept, under names with forward slashes; one that `blocks` waits for a network."""

    blocks: bool

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        """Store the bytes whole and return their address.

        Raises `FileExistsError` if the name is taken and `overwrite` is false, `StorageError` if nothing can be stored.
        """
        ...

    def get(self, name: str) -> bytes | None:
        """Read what is stored under a name, or return `None`."""
        ...

    def remove(self, name: str) -> None:
        """Remove what is stored under a name, if it is there; raises `StorageError`."""
        ...

    def size(self, name: str) -> int | None:
        """Tell how many bytes are stored under a name, or return `None`."""
        ...

    def link(self, name: str, seconds: float) -> str | None:
        """Return a link with which anyone reads an object for so many seconds; `None` where the place makes none."""
        ...

    def check(self) -> None:
        """Prove that images can be stored: write a small object and remove it.

        Raises `InvalidUsageError` if this place cannot be written, `StorageError` if it may be writable later.
        """
        ...

    def check_name(self, name: str) -> None:
        """Refuse a name that this place can never store; raises `InvalidUsageError`."""
        ...


class Folder:
    """A local folder; every file in it is flushed, and so is the folder."""

    blocks = False

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
                raise InvalidUsageError("", faults=[Fault("output", name, BELOW_A_FILE)]) from None
            raise
        except OSError as error:
            if error.errno in BAD_NAME and self.root.is_dir():
                raise InvalidUsageError(
                    "", faults=[Fault("output", name, f"cannot be the name of a file here: {error.strerror}")]
                ) from None
            raise StorageError(f"{target} cannot be written: {error.strerror or error}.") from None
        return str(target)

    def get(self, name: str) -> bytes | None:
        """Read a regular file, if it is there."""
        try:
            return read_file(self._inside(name))
        except OSError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self._inside(name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self.root / name} cannot be removed: {error.strerror or error}.") from None

    def size(self, name: str) -> int | None:
        """Tell the size of a file, if it is there."""
        try:
            return self._inside(name).stat().st_size
        except OSError:
            return None

    def link(self, name: str, seconds: float) -> None:
        """Make none: a folder answers to nobody."""

    def check(self) -> None:
        """Make the folder, write a file into it, flush it and remove it."""
        probe = self.root / f".{PROBE}-{token_hex(8)}"
        try:
            try:
                save(PROBE.encode(), probe, overwrite=False)
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno not in NOT_WRITABLE:
                raise StorageError(f"No image can be stored in {self.root}: {reason}.") from None
            wrong, hint = (
                f"cannot be written: {reason}",
                "name another folder, or give this process the right to write there",
            )
            if self.root.is_file():
                wrong, hint = "is a file, and must be a folder", "name a folder"
            raise InvalidUsageError("", faults=[Fault("output", str(self.root), wrong, hint)]) from None

    def check_name(self, name: str) -> None:
        """Refuse a name that leads out of the folder through a link, lies below a file, or is a folder."""
        target = self._inside(name)
        if target.is_dir():
            raise InvalidUsageError("", faults=[Fault("output", name, f"is a folder in {self.root}")])
        root = self.root.resolve()
        inside = (folder for folder in target.parents if folder.is_relative_to(root) and folder != root)
        if any(folder.exists() and not folder.is_dir() for folder in inside):
            raise InvalidUsageError("", faults=[Fault("output", name, BELOW_A_FILE)])

    def _inside(self, name: str) -> Path:
        root = self.root.resolve()
        target = (root / name).resolve()
        if not target.is_relative_to(root) or target == root:
            raise InvalidUsageError("", faults=[Fault("name", name, f"leads out of {self.root}")])
        return target


class Bucket:
    """A bucket behind obstore, with an optional prefix."""

    blocks = True

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import from_url  # noqa: PLC0415  (an extra)
        except ModuleNotFoundError:  # pragma: no cover  (the extra is there wherever the tests run)
            raise InvalidUsageError(f"{url} needs one more package: pip install 'fluxwerk[storage]'") from None
        self._url = url.rstrip("/")
        with _explained(url, f"{url} cannot be opened"):
            self._store: Any = from_url(url)

    def __repr__(self) -> str:
        return f"Bucket({self._url!r})"

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        """Put the object in one request, which the store takes whole or refuses."""
        import obstore  # noqa: PLC0415

        try:
            with _explained(self._url, f"Nothing can be stored at {self._url} now"):
                kind = CONTENT_TYPES.get(name.rpartition(".")[2])
                attributes = {"Content-Type": kind} if kind else None
                obstore.put(self._store, name, data, mode="overwrite" if overwrite else "create", attributes=attributes)
        except FileNotFoundError:
            raise StorageError(f"There is no bucket at {self._url}; make it, or name another.") from None
        return f"{self._url}/{name}"

    def get(self, name: str) -> bytes | None:
        """Read an object, if it is there."""
        import obstore  # noqa: PLC0415

        try:
            with _explained(self._url, f"{name} cannot be read from {self._url} now"):
                return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Delete an object; a store says nothing of one that is not there."""
        import obstore  # noqa: PLC0415

        with suppress(FileNotFoundError), _explained(self._url, f"{name} cannot be removed from {self._url} now"):
            obstore.delete(self._store, name)

    def size(self, name: str) -> int | None:
        """Tell the size of an object, if it is there."""
        import obstore  # noqa: PLC0415

        try:
            with _explained(self._url, f"{name} cannot be looked up at {self._url} now"):
                return int(obstore.head(self._store, name)["size"])
        except FileNotFoundError:
            return None

    def link(self, name: str, seconds: float) -> str | None:
        """Let the store sign a link; `None` for a store that signs none."""
        import obstore  # noqa: PLC0415

        if not self._url.startswith(SIGNING):
            return None
        with _explained(self._url, f"No link to {name} can be signed for {self._url}"):
            return str(obstore.sign(self._store, "GET", name, timedelta(seconds=max(1, int(seconds)))))

    def check(self) -> None:
        """Put a small object and delete it; without the right to delete, it stays and the next check replaces it."""
        self.put(PROBE, PROBE.encode(), overwrite=True)
        with suppress(StorageError):
            self.remove(PROBE)

    def check_name(self, name: str) -> None:
        """Accept every name: a bucket has no folders and no links."""


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
    with writing(path, overwrite=overwrite, lasting=lasting) as file:
        file.writelines(parts)
    return Path(path)


@contextmanager
def writing(path: str | os.PathLike[str], *, overwrite: bool = True, lasting: bool = False) -> Generator[IO[bytes]]:
    """Open a file that gets its name once the block has ended without an error, as `save` does.

    What is there and is not a regular file (a device, a FIFO) is written to and never replaced.
    """
    target = Path(path)
    if overwrite and _is_special(target):
        with target.open("wb") as file:
            yield file
        return
    # A link stays a link: what it names gets the bytes.
    target = target.resolve() if overwrite and target.is_symlink() else target
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name[:NAME_PREFIX]}.{token_hex(8)}.part"
    try:
        with part.open("xb") as file:
            yield file
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


def read_file(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises `OSError` for anything else: its `errno` is EINVAL for what is not a regular file, EFBIG for a larger one.
    """
    # Opening a FIFO would wait for a writer; a flag that Windows does not have, nor FIFOs in its folders.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        if limit is not None and found.st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", os.fspath(path))
    except OSError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file:
        return file.read() if limit is None else file.read(limit)


def _is_special(path: Path) -> bool:
    """Whether a path names something that is there and is neither a regular file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def give_name(part: Path, target: Path) -> None:
    """Give a whole file its lasting name; raises `FileExistsError` if that is taken."""
    _name(part, target)
    _flush_folder(target.parent)


def _name(part: Path, target: Path) -> None:
    """Give a file its name unless that is taken; a link decides in one step where the file system has links."""
    try:
        target.hardlink_to(part)
    except OSError as error:
        if error.errno not in NO_LINKS:
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
def _explained(url: str, what: str) -> Generator[None]:
    """Turn the errors of a bucket into ours: taken, missing, or `what` cannot be done."""
    import obstore.exceptions as known  # noqa: PLC0415

    try:
        yield
    except known.AlreadyExistsError:
        raise FileExistsError(errno.EEXIST, "exists already", url) from None
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "is not there", url) from None
    except known.BaseError as error:
        # What follows the first line is for the library's authors.
        reason = redact(str(error).partition("\n")[0])[:LONGEST_REASON]
        raise StorageError(f"{what}; check its credentials and the network. {reason}") from None
