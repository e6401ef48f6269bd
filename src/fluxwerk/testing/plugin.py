"""Fixtures for pytest, found by its entry point once fluxwerk is installed."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fluxwerk.testing.cassette import Cassette
    from fluxwerk.testing.face_to_face import FaceToFace
    from fluxwerk.testing.server import LocalServer, SeenRequest, Troublemaker, TurnableClock

RECORD = "--fluxwerk-record"
_server = pytest.StashKey["LocalServer"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that records cassettes."""
    group = parser.getgroup("fluxwerk")
    group.addoption(RECORD, action="store_true", help="Record cassettes from the service: sends requests, and costs.")


@pytest.fixture(scope="session")
def fluxwerk_shared_server() -> Generator[LocalServer]:
    """Yield the server that the tests of a process share."""
    from fluxwerk.testing import local_server  # noqa: PLC0415  (only suites that ask for it pay)

    with local_server() as server:
        yield server


@pytest.fixture
def fluxwerk_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    """Yield the base URL of a fluxwerk server with the offline engine: real HTTP, any key, no bill.

    During the test BFL_API_KEY and BFL_BASE_URL lead `Client()` to it.  A parameter holds arguments of
    `fluxwerk.testing.loopback`, for a server of the test's own:
    `@pytest.mark.parametrize("fluxwerk_server", [{"strict": True}], indirect=True)`.
    """
    from fluxwerk.testing import local_server  # noqa: PLC0415

    settings = getattr(request, "param", None)
    if settings is None:
        shared: LocalServer = request.getfixturevalue("fluxwerk_shared_server")
        yield from _serve(request, monkeypatch, shared)
        # The next test finds it as this one did.
        shared.forget()
        shared.clock.reset()
        return
    with local_server(**settings) as server:
        yield from _serve(request, monkeypatch, server)


def _serve(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, server: LocalServer) -> Generator[str]:
    request.node.stash[_server] = server
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server.base_url


def _local(request: pytest.FixtureRequest) -> LocalServer:
    server: LocalServer = request.node.stash[_server]
    return server


@pytest.fixture
def fluxwerk_requests(fluxwerk_server: str, request: pytest.FixtureRequest) -> list[SeenRequest]:
    """Return the requests that have reached the server during the test: method, path, fields, status, model, prompt."""
    return _local(request).requests


@pytest.fixture
def fluxwerk_trouble(fluxwerk_server: str, request: pytest.FixtureRequest) -> Troublemaker:
    """Return what makes the server misbehave: `fluxwerk_trouble(on="submit", do="status", status=429, first=2)`."""
    return _local(request).trouble


@pytest.fixture
def fluxwerk_clock(fluxwerk_server: str, request: pytest.FixtureRequest) -> TurnableClock:
    """Return the server's clock: `fluxwerk_clock.turn(601)` expires every delivery link."""
    return _local(request).clock


@pytest.fixture
def fluxwerk_cassette(request: pytest.FixtureRequest) -> Generator[Cassette]:
    """Yield a recorded conversation: `cassettes/NAME-OF-THE-TEST.json` beside the test, made by --fluxwerk-record."""
    from fluxwerk.testing import Cassette  # noqa: PLC0415

    file = request.path.parent / "cassettes" / f"{request.node.name}.json"
    with Cassette(file, record=bool(request.config.getoption(RECORD))) as cassette:
        yield cassette


@pytest.fixture
def face_to_face(request: pytest.FixtureRequest) -> FaceToFace:
    """Return a client and a server in one thread on a pretend clock, for tests in which hours pass.

    A parameter holds arguments of `fluxwerk.testing.FaceToFace`, such as `{"strict": True}`.
    """
    from fluxwerk.testing import FaceToFace  # noqa: PLC0415

    return FaceToFace(**getattr(request, "param", {}))
