"""Where the image of a command goes: which names are allowed, and that nothing which is there is lost."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import click

from fluxwerk.client.image import Image
from fluxwerk.errors import Fault, InvalidUsageError, StorageError

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
NAMES = "must end in .png, .jpg, .jpeg or .webp"
# In these folders a name stands for something that is open, even where that is a regular file.
OPEN_FILES = frozenset({"/dev", "/dev/fd", "/proc/self/fd"})


def output_options(command: F) -> F:
    """Add -o and --overwrite to a command that writes one image."""
    command = click.option(
        "--overwrite", is_flag=True, help="Replace a file of that name; by default the new one gets a number."
    )(command)
    return click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The file to write, as .png, .jpg, .jpeg or .webp; a name without a suffix gets the image's own.",
    )(command)


def format_of(output: Path | None) -> str | None:
    """Read the image format from the name of a file, or return `None` where the name leaves it open.

    Raises `InvalidUsageError` for a suffix of another format.
    """
    if output is None or not output.suffix or passes_through(output):
        return None
    if output.suffix.lower() not in FORMATS:
        raise InvalidUsageError("", faults=[Fault("--output", str(output), NAMES, "the service makes no other format")])
    return FORMATS[output.suffix.lower()]


def check_output(output: Path | None, *, count: int = 1, as_json: bool) -> None:
    """Prove before the submit that the image can be written; raises `InvalidUsageError`."""
    if output and passes_through(output):
        if count > 1:
            raise InvalidUsageError("", faults=[Fault("--output", str(output), "takes one image only")])
        if as_json and is_stdout(output):
            raise InvalidUsageError("", faults=[Fault("--json", None, "writes to stdout, and so does --output")])
        writable = os.access(output, os.W_OK)
    else:
        writable = _is_writable((output or Path("image")).absolute())
    if not writable:
        fault = Fault("--output", str(output or Path.cwd()), "cannot be written", "choose another place")
        raise InvalidUsageError("", faults=[fault])


def save_image(image: Image, output: Path, *, overwrite: bool = False) -> Path:
    """Write a paid image and return its path: under the suffix of its format, and numbered if the name is taken.

    Raises `StorageError` with the task, so that the image can be collected again.
    """
    try:
        if passes_through(output):
            with output.open("wb") as file:
                file.write(image.data)
            return output
        return _save(image, _named(image, output), overwrite=overwrite)
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror or error}.", task=image.task) from None


def passes_through(path: Path) -> bool:
    """Whether bytes are written into what has that name, as into a device or a FIFO, and never take its place."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or str(path.absolute().parent) in OPEN_FILES


def is_stdout(path: Path) -> bool:
    """Whether a path names what the standard output writes to, so that no text may be mixed into it."""
    try:
        return passes_through(path) and os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def _is_writable(file: Path) -> bool:
    folder = file.parent
    while not folder.exists():
        folder = folder.parent
    try:
        # A name may be too long, or lie below a file.
        with suppress(FileNotFoundError):
            file.lstat()
        # The right to write does not say that a file can be made: a read-only mount and /proc refuse root as well.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fluxwerk-"):
            return True
    except OSError:
        return False


def _named(image: Image, output: Path) -> Path:
    wanted = FORMATS.get(output.suffix.lower())
    if wanted == image.suffix:
        return output
    if wanted is None:
        return output.with_name(f"{output.name}.{image.suffix}")
    named = output.with_suffix(f".{image.suffix}")
    click.echo(f"The image is a {image.suffix.upper()}, so it is saved as {named} and not as {output}.", err=True)
    return named


def _save(image: Image, file: Path, *, overwrite: bool) -> Path:
    for number in count(1):
        path = file if number == 1 else file.with_stem(f"{file.stem}-{number}")
        try:
            saved = image.save(path, overwrite=overwrite)
        except FileExistsError:
            if not os.path.lexists(path):
                # A folder on the way is a file.
                raise
            continue
        if number > 1:
            click.echo(f"{file} exists, so the image is saved as {path}; --overwrite would replace it.", err=True)
        return saved
    raise AssertionError("unreachable")  # pragma: no cover
