"""Fixtures for pytest, found by its entry point once fluxwerk is installed."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fluxwerk.testing.face_to_face import FaceToFace


@pytest.fixture(scope="session")
def fluxwerk_server(request: pytest.FixtureRequest) -> Generator[str]:
    """Yield the base URL of a fluxwerk server with the offline engine: real HTTP, any key, no bill.

    A parameter holds arguments of `fluxwerk.testing.loopback`:
    `@pytest.mark.parametrize("fluxwerk_server", [{"strict": True}], indirect=True)`.
    """
    from fluxwerk.testing import loopback  # noqa: PLC0415  (only suites that ask for it pay)

    with loopback(**getattr(request, "param", {})) as base:
        yield base


@pytest.fixture
def face_to_face(request: pytest.FixtureRequest) -> FaceToFace:
    """Return a client and a server in one thread on a pretend clock, for tests in which hours pass.

    A parameter holds arguments of `fluxwerk.testing.FaceToFace`, such as `{"strict": True}`.
    """
    from fluxwerk.testing import FaceToFace  # noqa: PLC0415

    return FaceToFace(**getattr(request, "param", {}))
