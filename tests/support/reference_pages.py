"""The pages of the reference that the source writes: commands, models, errors and HTTP.

`nox -s docs` writes them beside the pages of `docs/`, so that they are as new as the source.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fluxwerk import catalog, errors
from fluxwerk.cli.exit import EXITS, code_of
from fluxwerk.cli.group import group
from fluxwerk.cli.models import price_of
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server import app as application
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState

WRITTEN = "This page is written from the source.\n\n"
METHODS = ("get", "post", "delete", "put", "patch")


def pages() -> dict[str, str]:
    """Return each page by its path below the folder of the documentation."""
    return {
        "reference/cli.md": _cli(),
        "reference/models.md": _models(),
        "reference/errors.md": _errors(),
        "reference/http.md": _http(),
    }


def write(folder: Path) -> None:
    """Write the pages below a copy of `docs/`."""
    for path, text in pages().items():
        (folder / path).write_text(text, encoding="utf-8")


def commands(command: click.Command = group, name: str = "fluxwerk") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name, a group before its own."""
    yield name, command
    if isinstance(command, click.Group):
        for child in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), child)
            assert found is not None
            yield from commands(found, f"{name} {child}")


def _cli() -> str:
    text = "# Command line\n\n" + WRITTEN
    for name, command in commands():
        context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
        text += f"## {name}\n\n```text\n{command.get_help(context)}\n```\n\n"
    return text


def _models() -> str:
    text = "# Models\n\n" + WRITTEN
    text += "Prices are in credits, and 1 credit is $0.01; a question mark means that a price is not confirmed.\n\n"
    text += "| model | path | price | images in | slots | best for |\n|---|---|---|---|---|---|\n"
    rows = list(catalog.list_models().values())
    for row in rows:
        taken = row.references or sum(option.type == "image" for option in row.options.values())
        link = f"[{row.name}](#{anchor(row.name)})"
        path = f"`{row.path}`" if row.hosted else "only local"
        text += f"| {link} | {path} | {price_of(row)} | {taken or '–'} | {row.slots} | {row.best_for} |\n"
    for row in rows:
        text += f"\n## {row.name}\n\n{_about(row)}\n\n| option | allowed | default |\n|---|---|---|\n"
        for option in row.options.values():
            default = "–" if option.default is None else f"`{json.dumps(option.default, default=str)}`"
            needed = " (required)" if option.required else ""
            text += f"| `{option.name}`{needed} | {_cell(option.allowed())} | {default} |\n"
        text += f"\nSource: {row.source}, checked {row.checked}.\n"
    return text


def _errors() -> str:
    text = "# Errors\n\n" + WRITTEN
    text += "```text\n" + inspect.cleandoc(errors.__doc__ or "") + "\n```\n\n"
    text += "| error | meaning | exit code of the command line |\n|---|---|---|\n"
    for kind in _kinds(errors.FluxwerkError):
        meaning = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
        text += f"| `{kind.__name__}` | {_cell(meaning)} | {code_of(kind.__new__(kind))} |\n"
    text += "\n| exit code | meaning |\n|---|---|\n| 0 | done |\n"
    return text + "".join(f"| {code} | {words} |\n" for code, words in EXITS)


def _http() -> str:
    state = ServerState(Accounts(), lambda: 0.0)
    schema: dict[str, Any] = application.build(state, OfflineEngine()).openapi()
    text = "# HTTP\n\n" + WRITTEN
    text += "A running server shows the same at `/docs`, and as OpenAPI at `/openapi.json`.\n\n"
    text += "| request | what it does |\n|---|---|\n"
    for path, item in schema["paths"].items():
        for method in METHODS:
            if method in item:
                summary = item[method].get("summary") or item[method].get("description", "")
                text += f"| `{method.upper()} {path}` | {_cell(summary)} |\n"
    return text


def _about(row: catalog.rows.Model) -> str:
    return f"{row.title}. {row.note}".strip()


def _kinds(kind: type[errors.FluxwerkError]) -> Iterator[type[errors.FluxwerkError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _kinds(child)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def anchor(title: str) -> str:
    """Return the name by which a link finds a heading."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
