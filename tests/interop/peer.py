"""Other people's clients: each installed unchanged in a folder of its own, and run as a program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.needed import do_without

CLIENTS = Path(__file__).with_name("clients")
group = pytest.mark.skipif(
    "interop" not in os.environ.get("FLUXWERK_GROUPS", "").split(","),
    reason="the group interop needs the package registries: nox -s interop",
)
# What pip and npm say when there is nobody to ask; a package that is gone, or does not fit, is a failure instead.
UNREACHABLE = re.compile(
    r"from versions: none|Max retries|Connection|timed out|Temporary failure|"
    r"ENOTFOUND|ECONNREFUSED|ETIMEDOUT|ECONNRESET|EAI_AGAIN"
)
OLDEST_NODE = 20


def python(folder: Path, *requirements: str, loosened: tuple[str, ...] = ()) -> Path:
    """Make a virtual environment with these packages and return its python.

    `loosened` names dependencies whose own versions are not insisted on, for the one that asks for a release which an
    index may not have yet.
    """
    call([sys.executable, "-m", "venv", str(folder)], "venv")
    own = folder / "bin" / "python"
    pip = [str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if loosened:
        call([*pip, "--no-deps", *requirements], requirements[0])
        requirements = _dependencies(own, requirements[0].partition("==")[0], loosened)
    call([*pip, *requirements], requirements[0])
    return own


def node(folder: Path, *packages: str) -> str:
    """Install npm packages in a folder and return the path of node."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if not (program and npm):
        pytest.skip("node and npm are not installed")
    version = call([program, "--version"], "node").strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node is {version}, and {OLDEST_NODE} is needed")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "package.json").exists():
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
    call([npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *packages], "npm", cwd=folder)
    return program


def call(command: list[str], what: str, cwd: Path | None = None) -> str:
    """Run an installer and return what it printed; does without when nobody answers, and fails when it is refused."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        said = done.stderr[-4000:]
        if UNREACHABLE.search(said):
            do_without("registries", f"{what}: its registry cannot be reached")
        pytest.fail(f"{what} could not be installed:\n{said}")
    return done.stdout


def run(command: list[str | Path], environment: Mapping[str, str], home: Path) -> dict:
    """Run a client in an environment of its own, and return the JSON that it prints last."""
    own = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", "BFL_API_KEY": "bfl_a_key_for_tests"}
    done = subprocess.run(
        [str(word) for word in command],
        env={**own, **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def _dependencies(own: Path, name: str, loosened: tuple[str, ...]) -> tuple[str, ...]:
    program = f"from importlib.metadata import requires; print(*requires({name!r}), sep='\\n')"
    lines = [line for line in call([str(own), "-c", program], name).splitlines() if "extra ==" not in line]
    bare = {line: re.match(r"[\w.-]+", line)[0] for line in lines}
    return tuple(bare[line] if bare[line] in loosened else line for line in lines)
