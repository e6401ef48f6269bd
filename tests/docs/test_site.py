"""The documentation site has every page, and its reference has everything that the source has."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fluxwerk import catalog, errors
from support import reference_pages

ROOT = Path(__file__).parents[2]
PAGES = reference_pages.pages()


def navigation(entry: object) -> Iterator[str]:
    """Yield every page of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for child in entry.values() if isinstance(entry, dict) else entry:
            yield from navigation(child)


def test_the_navigation_names_every_page_once():
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    named = list(navigation(site["project"]["nav"]))

    written = {page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md")}
    assert sorted(named) == sorted(written | set(PAGES))


def test_the_command_line_page_shows_the_help_of_every_command():
    for name, command in reference_pages.commands():
        assert f"\n## {name}\n" in PAGES["reference/cli.md"]
        assert isinstance(command, click.Command)
    assert "fluxwerk batch run" in PAGES["reference/cli.md"]


def test_the_models_page_has_every_model_and_option():
    for model in catalog.list_models().values():
        assert f"\n## {model.name}\n" in PAGES["reference/models.md"]
        for option in model.options:
            assert f"| `{option}`" in PAGES["reference/models.md"]


def test_the_errors_page_has_every_error_and_its_exit_code():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.FluxwerkError)]
    rows = re.findall(r"^\| `(\w+)` \| .+ \| \d+ \|$", PAGES["reference/errors.md"], re.MULTILINE)

    assert sorted(rows) == sorted(kind.__name__ for kind in kinds if kind is not errors.FluxwerkError)


def test_the_http_page_has_the_requests_of_the_guide():
    for request in ("POST /v1/flux-2-pro", "GET /v1/get_result", "GET /v1/credits"):
        assert f"`{request}`" in PAGES["reference/http.md"]


def test_every_link_between_headings_of_a_written_page_leads_to_one():
    text = PAGES["reference/models.md"]
    headings = {reference_pages.anchor(title) for title in re.findall(r"^## (.+)$", text, re.MULTILINE)}

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == headings


@pytest.mark.parametrize("public", ["Client", "AsyncClient", "Image", "Result", "Request", "Task", "Status", "Event"])
def test_the_api_page_names_the_public_classes(public):
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")

    assert re.search(rf"^::: fluxwerk\.[\w.]+\.{public}$", text, re.MULTILINE)


def test_the_commands_of_the_tutorial_run_in_their_order(tmp_path):
    text = (ROOT / "docs" / "tutorial" / "first-image.md").read_text(encoding="utf-8")
    code = {
        kind: re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for kind in ("sh", "csv", "python")
    }
    (tmp_path / "prompts.csv").write_text(code["csv"][0], encoding="utf-8")
    for program, name in zip(code["python"], ("fox.py", "test_fox.py"), strict=True):
        (tmp_path / name).write_text(program, encoding="utf-8")
    script = "".join(code["sh"]).replace("fluxwerk ", f"{sys.executable} -m fluxwerk ")
    script += f"{sys.executable} fox.py\n{sys.executable} -m pytest -q -p no:cacheprovider test_fox.py\n"

    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr + done.stdout
    assert {"lighthouse.png", "night.png", "fox.png"} <= {file.name for file in tmp_path.iterdir()}
