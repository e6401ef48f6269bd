"""Text files line by line, in UTF-8 or the encoding that was named; a byte that does not fit is named with its line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from fluxwerk.errors import Fault, InvalidUsageError

UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Which encoding a Windows program in western Europe or America writes, and the bytes that it does not use.
WINDOWS = "cp1252"
UNUSED_IN_WINDOWS = frozenset(b"\x81\x8d\x8f\x90\x9d")


def read_lines(path: Path, encoding: str | None = None, newline: str | None = None) -> Iterator[str]:
    """Yield each line of a text; `newline` as for `open`.

    Raises `InvalidUsageError` with the line of a byte that does not fit the encoding.
    """
    chosen = encoding or _marked(path)
    number = 0
    # utf-8-sig drops the mark that Excel writes first.
    with path.open(encoding="utf-8-sig" if _is_utf_8(chosen) else chosen, newline=newline) as file:
        try:
            for line in file:
                number += 1
                yield line
        except UnicodeError as error:
            raise _bad_byte(path, chosen, number, error) from None


def check_encoding(name: str) -> None:
    """Refuse a name that is not the name of an encoding; raises `InvalidUsageError`."""
    try:
        "a".encode(name)
    except (LookupError, UnicodeError, ValueError):
        hint = "Excel on Windows writes cp1252, and utf-16 as Unicode text"
        fault = Fault("--encoding", name, "must be an encoding that Python knows, such as utf-8 or cp1252", hint)
        raise InvalidUsageError("", faults=[fault]) from None


def unreadable(path: Path, number: int, reason: str) -> InvalidUsageError:
    """Describe what is wrong with a line of a file."""
    return InvalidUsageError("", faults=[Fault(f"{path.name}, line {number}", None, reason)])


def _marked(path: Path) -> str:
    """Read the encoding from the mark at the beginning of a file, where there is one."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in UTF_16_MARKS else "utf-8"


def _is_utf_8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _bad_byte(path: Path, encoding: str, read: int, error: UnicodeError) -> InvalidUsageError:
    if not isinstance(error, UnicodeDecodeError) or not _is_utf_8(encoding):
        return unreadable(path, read + 1, f"is not {encoding} from here on ({error}); say --encoding NAME")
    # The decoder reads a block ahead, so the last line that it handed on is not the one before the byte.
    number, byte, guess = _look_for_bad_byte(path)
    advice = "save the file as UTF-8, or say --encoding NAME"
    if guess:
        advice = f"it looks like {guess}, as Excel on Windows writes: say --encoding {guess}, or save it as UTF-8"
    return unreadable(path, number, f"byte {byte:#04x} is not UTF-8; {advice}")


def _look_for_bad_byte(path: Path) -> tuple[int, int, str | None]:
    """Find the line and the first byte that is not UTF-8, and guess the encoding from the whole line."""
    number = 1
    with path.open("rb") as file:
        for line in file:
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                number += _old_line_ends(line[: error.start])
                guess = None if UNUSED_IN_WINDOWS.intersection(line) else WINDOWS
                return number, line[error.start], guess
            number += _old_line_ends(line) + 1
    raise AssertionError("the file was changed while it was read")


def _old_line_ends(line: bytes) -> int:
    """Count the carriage returns that end a line by themselves, as on an old Mac."""
    return line.removesuffix(b"\n").removesuffix(b"\r").count(b"\r")
