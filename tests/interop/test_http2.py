"""HTTP/2, by a client of httpx2 that was handed in: many conversations on one connection."""

from __future__ import annotations

import asyncio
import ssl
import time

import httpx2
import pytest

from fluxwerk import AsyncClient
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server.app import build
from fluxwerk.server.loopback import listen
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from interop import peer

pytestmark = peer.group


def test_many_images_share_one_connection_of_http_2(tmp_path):
    hypercorn = pytest.importorskip("hypercorn.asyncio")
    trustme = pytest.importorskip("trustme")
    pytest.importorskip("h2")
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "localhost.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    spoken, lines = set(), set()

    async def hear(response):
        spoken.add(response.http_version)
        lines.add(response.extensions["network_stream"].get_extra_info("client_addr"))

    async def talk(port):
        async with httpx2.AsyncClient(http2=True, verify=trust, event_hooks={"response": [hear]}) as http:
            client = AsyncClient("a-key", base_url=f"https://localhost:{port}", http_client=http)
            return [made async for made in client.generate_many(["a fox"] * 12, width=64, height=64)]

    async def run():
        from hypercorn.config import Config  # noqa: PLC0415  (only this group has it)

        with listen("127.0.0.1", 0) as listening:
            port, config, enough = listening.getsockname()[1], Config(), asyncio.Event()
            config.bind = [f"fd://{listening.detach()}"]
            config.certfile = config.keyfile = str(tmp_path / "localhost.pem")
            app = build(ServerState(Accounts(), time.time), OfflineEngine())
            serving = asyncio.create_task(hypercorn.serve(app, config, shutdown_trigger=enough.wait))
            try:
                return await talk(port)
            finally:
                enough.set()
                await serving

    made = asyncio.run(run())

    assert [one.error for one in made] == [None] * 12
    assert spoken == {"HTTP/2"}
    assert len(lines) < 4
