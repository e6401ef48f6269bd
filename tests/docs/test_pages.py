"""Every page's code runs, its commands and options exist, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fluxwerk.cli.group import group
from support import reference_pages

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
# The documentation site has these pages; the source writes them.
WRITTEN = {ROOT / "docs" / page for page in reference_pages.pages()}
# A fragment of an application cannot run alone; tests/docs/test_examples.py compiles them.
STANDS_ALONE = [
    "docs/how-to/batch.md",
    "docs/how-to/chat-applications.md",
    "docs/how-to/costs.md",
    "docs/how-to/migrate.md",
    "docs/how-to/prompts.md",
    "docs/how-to/retries.md",
    "docs/how-to/conform.md",
    "docs/how-to/money.md",
    "docs/how-to/trouble.md",
]
OLD_NAMES = ("floors.md", "Misused", "Forgotten", "OutOfCredits", "fluxwerk.find", "fluxwerk.jobs", "engines.diffusers")


def blocks(name: str, *kinds: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if kind in kinds]


def commands(name: str) -> list[list[str]]:
    """Return the words of every line of the page's shell blocks that calls fluxwerk."""
    lines = "\n".join(blocks(name, "sh", "console", "")).replace("\\\n", " ").splitlines()
    found = [re.split(r" && | \| ", line.removeprefix("$ "))[-1] for line in lines]
    return [shlex.split(line, comments=True)[1:] for line in found if line.startswith("fluxwerk ")]


# The page of mistakes shows commands and options that do not exist.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "docs/how-to/when-it-fails.md"])
def test_every_command_and_option_of_a_page_exists(name):
    for words in commands(name):
        command: click.Command = group
        context = click.Context(group)
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            command = command.get_command(context, rest.pop(0))
            assert command is not None, words
            context = click.Context(command)
        options = {option for param in command.get_params(context) for option in (*param.opts, *param.secondary_opts)}
        used = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert used <= options | {"--help", "--version"}, words


@pytest.mark.parametrize("name", NAMES)
def test_every_link_inside_the_repository_leads_to_a_file(name):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8")):
        if "://" not in link:
            target = (ROOT / name).parent.joinpath(link).resolve()
            assert target.exists() or target in WRITTEN, link


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_page_names_is_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for file in re.findall(r"`((?:src|tests|bench|examples|docs)/[\w./-]+\.\w+)", text):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])
def test_no_page_uses_a_name_of_the_first_release(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [word for word in OLD_NAMES if word in text] == []


@pytest.mark.parametrize("name", STANDS_ALONE)
def test_the_python_of_a_page_runs(name, fluxwerk_server, tmp_path):
    environment = {**os.environ, "BFL_API_KEY": "any-key", "BFL_BASE_URL": fluxwerk_server}
    # A hundred images at full size would only take longer.
    program = "\n".join(blocks(name, "python")).replace("range(100)", "range(3)")
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
