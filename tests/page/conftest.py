"""One browser and one plain server for the tests of one file; each test has an account of its own there."""

from __future__ import annotations

import pytest

from support.browser import browsing, studio_at
from support.process import process


@pytest.fixture(scope="module")
def browser():
    """A browser, whose event loop must not outlive the tests of the file."""
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def server():
    """A server as `fluxwerk serve` starts it, that fetches images from this machine."""
    with process("--allow-network", "127.0.0.0/8") as (base, _):
        yield base


@pytest.fixture
def page(browser, server):
    """The studio of a new account."""
    with studio_at(browser, server) as found:
        yield found
