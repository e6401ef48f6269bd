"""A server that answers to the service's own names, as a proxy before it passes them on, and a gateway to one."""

from __future__ import annotations

import pytest

from fluxwerk.testing import loopback
from support.process import process

NAMES = ("api.bfl.ai", "api.us1.bfl.ai", "router.huggingface.co")


@pytest.fixture(scope="session", params=["server", "gateway"])
def fluxwerk_server(request, tmp_path_factory):
    if request.param == "server":
        with loopback(hosts=NAMES, proxies=("127.0.0.1",)) as base:
            yield base
        return
    key = tmp_path_factory.mktemp("gateway") / "key"
    key.write_text("the-gateways-own-key")
    key.chmod(0o600)
    names = [word for name in NAMES for word in ("--allowed-host", name)]
    inside = ["--trusted-proxy", "127.0.0.1", "--allow-network", "127.0.0.0/8"]
    with loopback() as service:
        upstream = ["--engine", "upstream", "--upstream", service, "--upstream-key-file", key]
        with process(*upstream, *names, *inside) as (base, _):
            yield base
