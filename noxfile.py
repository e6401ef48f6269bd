"""Checks that need more than this package: `nox -s interop`."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox


@nox.session
def interop(session: nox.Session) -> None:
    """Run other BFL clients and our examples against our server, and our buckets against an S3 server.

    It needs the package registries.
    """
    session.install("-e", ".[test,http2]", "hypercorn>=0.17,<1", "trustme>=1.2,<2", "moto[s3,server]>=5,<6")
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
