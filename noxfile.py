"""Checks that need more than this package: `nox -s interop`."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# What a user writes, as a program and for type checkers; both run outside the repository.
CONSUMER = "tests/typing/api.py"
SMOKE = (
    "import fluxwerk, importlib.metadata as m; assert fluxwerk.Client; "
    "assert any(f.name == 'py.typed' for f in m.files('fluxwerk'))"
)


@nox.session
def interop(session: nox.Session) -> None:
    """Run other BFL clients and our examples against our server, and our buckets against an S3 server.

    It needs the package registries.
    """
    session.install("-e", ".[interop]")
    tests = session.posargs or ["tests/interop", "tests/docs/test_examples.py", "tests/test_bucket.py"]
    session.run("pytest", "-rs", "-v", *tests, env={"FLUXWERK_GROUPS": "interop"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site into build/site; a warning is an error."""
    session.install("-e", ".[test,docs]")
    pages = Path("build/docs")
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree("docs", pages)
    session.run("python", "tests/support/reference_pages.py", str(pages), env={"PYTHONPATH": "tests"})
    session.run("zensical", "build", "--strict", "--clean")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the sdist into dist/, with a list of what the package needs (SBOM, CycloneDX)."""
    shutil.rmtree("dist", ignore_errors=True)
    session.install("build>=1.3,<2", "cyclonedx-bom>=7,<8")
    session.run("python", "-m", "build")
    needed = Path(session.create_tmp()) / "needed"
    session.run("python", "-m", "venv", str(needed))
    wheel = next(Path("dist").glob("*.whl"))
    python = needed / "bin" / "python"
    session.run(str(python), "-m", "pip", "install", "--quiet", f"{wheel}[all]", external=True)
    session.run("cyclonedx-py", "environment", "--output-file", "dist/fluxwerk.cdx.json", str(python))


@nox.session(python=PYTHONS)
@nox.parametrize("kind", ["wheel", "sdist"])
def installed(session: nox.Session, kind: str) -> None:
    """Try the package as it is installed, after `nox -s build`: the first command, its types, and nothing beside it."""
    pattern = "*.whl" if kind == "wheel" else "*.tar.gz"
    package = next(Path("dist").glob(pattern)).resolve()
    consumer = Path(CONSUMER).resolve()
    session.install(f"{package}[all]", "mypy>=2.4,<3", "pyright>=1.1.400,<2")
    session.chdir(session.create_tmp())
    session.run("python", "-W", "error", "-c", SMOKE)
    session.run(
        "fluxwerk", "generate", "A fox in the snow", "--width", "256", "--height", "256", "--offline", "-o", "fox.png"
    )
    session.run("mypy", "--strict", str(consumer))
    session.run("pyright", str(consumer))
