"""The configurations of assistants on their page start `fluxwerk mcp` with options that exist."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import click

from fluxwerk.cli.group import group

PAGE = Path(__file__).parents[2].joinpath("docs", "how-to", "assistants.md").read_text(encoding="utf-8")


def servers() -> list[dict]:
    found = []
    for kind, text in re.findall(r"^```(json|toml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        told = json.loads(text) if kind == "json" else tomllib.loads(text)
        found += [one for name in ("mcpServers", "servers", "mcp_servers") for one in told.get(name, {}).values()]
    [words] = re.findall(r"^claude mcp add .* -- (.*)$", PAGE, re.MULTILINE)
    return [*found, {"command": words.split()[0], "args": shlex.split(words)[1:]}]


def test_each_configuration_starts_the_server_with_options_that_exist():
    command = group.get_command(click.Context(group), "mcp")
    options = {option for param in command.params for option in param.opts}
    assert len(servers()) == 4
    for server in servers():
        assert (server["command"], server["args"][0]) == ("fluxwerk", "mcp")
        assert {word for word in server["args"] if word.startswith("-")} <= options


def test_the_page_names_five_clients():
    for name in ("Claude Desktop", "Cursor", "Claude Code", "VS Code", "Codex"):
        assert name in PAGE
