"""Tables of text with a separator between the values, as Excel, pandas and LibreOffice write them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from fluxwerk.batch.text import read_lines, unreadable

# No model reads a longer prompt; the csv module stops at the same length.
LONGEST_FIELD = 131_072
SEPARATORS = (",", ";", "\t", "|")
# Excel's own first line, which names the separator and is not part of the table.
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
# What pandas calls a column without a name when it has read and written a table.
UNNAMED = re.compile(r"unnamed: \d+")


def read_rows(
    path: Path, separator: str | None, encoding: str | None = None, *, lone: bool = False
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the values of each row by the names of its columns, in lower case; empty values are left out.

    Without a `separator` it is read from a line such as `sep=;`, or else from the header.  A column without a name is
    left out if it is empty or the index of a data frame.  A `lone` column may have any name; in a manifest it is a
    prompt without a header.  Raises `InvalidUsageError` with the line of a fault.
    """
    # The csv module splits lines itself where a quoted value holds a line end.
    lines = read_lines(path, encoding, newline="")
    first = next(lines, "")
    skipped = 0
    if found := SEPARATOR_LINE.fullmatch(first.strip("\r\n")):
        separator, skipped, first = found[1], 1, next(lines, "")
    while first and not first.strip():
        skipped, first = skipped + 1, next(lines, "")
    separator = separator or _separator_of(first)
    header: _Header | None = None
    for number, cells in _records(path, chain([first], lines), separator, skipped):
        if header is None:
            header = _Header(path, number, cells, separator, lone=lone)
        else:
            yield number, header.read(number, cells)
    if header is None:
        raise unreadable(path, 1, "the file is empty; its first line must name the columns, such as prompt,model")


def _separator_of(header: str) -> str:
    """Find the separator with which the header has a column `prompt`, or else the most columns."""
    split = {
        separator: _names(next(csv.reader([header], delimiter=separator), list[str]())) for separator in SEPARATORS
    }
    # Of equals the first: a comma.
    return max(SEPARATORS, key=lambda separator: ("prompt" in split[separator], len(split[separator])))


def _records(path: Path, lines: Iterator[str], separator: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the values of each record that is not empty."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    number = skipped + 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise unreadable(path, number, _in_words(error)) from None
        if cells is None:
            return
        if any(cells):
            yield number, cells
        number = skipped + reader.line_num + 1


class _Header:
    """The names of the columns, and what may stand in those that have none."""

    def __init__(self, path: Path, number: int, cells: Sequence[str], separator: str, *, lone: bool) -> None:
        self._path = path
        self._separator = separator
        self._names = _names(cells)
        twice = {name for name in self._names if name and self._names.count(name) > 1}
        if twice:
            raise unreadable(path, number, f"the column {min(twice)!r} is there twice")
        if "prompt" not in self._names and len(self._names) == 1 and not lone:
            reason = f"the first line must name the columns, such as prompt,model; it is {cells[0]!r}"
            raise unreadable(path, number, reason)

    def read(self, number: int, cells: Sequence[str]) -> dict[str, str]:
        """Give each value the name of its column."""
        if any(cells[len(self._names) :]):
            reason = f"there are {len(cells)} values for {len(self._names)} columns; quote a value that holds "
            raise unreadable(self._path, number, reason + repr(self._separator))
        row: dict[str, str] = {}
        for place, (name, cell) in enumerate(zip(self._names, cells, strict=False)):
            if name:
                if cell != "":
                    row[name] = cell
            elif cell.strip() and not (place == 0 and cell.strip().isdigit()):
                reason = f"column {place + 1} has a value ({cell[:60]!r}) and no name; name it in the first line"
                raise unreadable(self._path, number, reason)
        return row


def _names(cells: Sequence[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    return ["" if UNNAMED.fullmatch(name) else name for name in names]


def _in_words(error: csv.Error) -> str:
    text = str(error)
    if "field larger" in text:
        return f"a value is longer than {LONGEST_FIELD} characters, which no model reads; is a quote missing?"
    return f"the quotes do not fit ({text}); write a quote inside quotes twice"
