"""One browser for the tests of one file: its event loop must not outlive them."""

from __future__ import annotations

import pytest

from support.browser import browsing


@pytest.fixture(scope="module")
def browser():
    with browsing() as found:
        yield found
