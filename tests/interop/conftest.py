"""A server that answers to the service's own names, as the proxy in front of it passes them on."""

from __future__ import annotations

import pytest

from fluxwerk.testing import loopback


@pytest.fixture(scope="session")
def fluxwerk_server():
    with loopback(hosts=("api.bfl.ai", "api.us1.bfl.ai", "router.huggingface.co"), proxies=("127.0.0.1",)) as base:
        yield base
