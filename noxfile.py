"""Checks that need more than this package: `nox -s interop`."""

from __future__ import annotations

import nox


@nox.session
def interop(session: nox.Session) -> None:
    """Run other BFL clients and our examples against our server, and our buckets against an S3 server.

    It needs the package registries.
    """
    session.install("-e", ".[test,http2]", "hypercorn>=0.17,<1", "trustme>=1.2,<2", "moto[s3,server]>=5,<6")
    tests = session.posargs or ["tests/interop", "tests/docs/test_examples.py", "tests/test_bucket.py"]
    session.run("pytest", "-rs", "-v", *tests, env={"FLUXWERK_GROUPS": "interop"})
