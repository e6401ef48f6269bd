"""Variables in prompts: `{{colour}}` stands for a value, and a prompt with variables for as many as there are rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TypeAlias

from fluxwerk.errors import Fault, InvalidUsageError

# A name as tables have it, with blanks inside, but none around it.
VARIABLE = re.compile(r"\{\{\s*(?P<name>\w[\w -]*?)\s*\}\}")
Table: TypeAlias = Sequence[Mapping[str, str]]


def variables_of(text: str) -> tuple[str, ...]:
    """Return the names of the variables in a text, each once, in lower case and in their order."""
    return tuple(dict.fromkeys(found["name"].lower() for found in VARIABLE.finditer(text)))


def fill_in(text: str, values: Mapping[str, object]) -> str:
    """Put a value in the place of every variable; raises `InvalidUsageError` with each name that has none."""
    known = {name.lower(): str(value) for name, value in values.items()}
    missing = [name for name in variables_of(text) if name not in known]
    if missing:
        have = f"has a value for {', '.join(known)} only" if known else "has no values"
        faults = [Fault("{{" + name + "}}", None, f"has no value; the table {have}") for name in missing]
        raise InvalidUsageError("The prompt has variables without a value:", faults=faults)
    # In one pass: a value that holds braces is text, not a variable.
    return VARIABLE.sub(lambda found: known[found["name"].lower()], text)


def combine(*tables: Table) -> Iterator[dict[str, str]]:
    """Yield the cartesian product of tables: every row of the one with every row of the others."""
    for rows in product(*tables):
        yield {name: value for row in rows for name, value in row.items()}


def expand(text: str, **values: Iterable[object]) -> list[str]:
    """Return a prompt for every combination of values: `expand("a {{colour}} fox", colour=["red", "white"])`."""
    tables = [[{name: str(value)} for value in column] for name, column in values.items()]
    return [fill_in(text, row) for row in combine(*tables)]
