"""The studio's own routes over PostgreSQL: asked in threads, beside the event loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import httpx2

from fluxwerk.server.app import build
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.fleet import FleetDatabase, FleetStore
from fluxwerk.server.state.state import ServerState
from fluxwerk.storage import Folder

BASE = "http://127.0.0.1"
FOX = {"prompt": "a fox", "width": 64, "height": 64}


async def _visit(state: ServerState) -> dict[str, httpx2.Response]:
    transport = httpx2.ASGITransport(app=build(state, None))
    async with httpx2.AsyncClient(transport=transport, base_url=BASE, headers={"x-key": "key"}) as client:
        name = (await client.post("/v1/flux-2-pro", json=FOX)).json()["id"]
        return {
            "session": await client.get("/v1/session"),
            "tags": await client.put(f"/v1/tasks/{name}/tags", json={"tags": ["poster"]}),
            "image": await client.get(f"/v1/tasks/{name}/image"),
            "delete": await client.delete(f"/v1/tasks/{name}/image"),
            "events": await client.get("/v1/events?seconds=0"),
            "ops": await client.get("/v1/ops"),
        }


def test_the_studio_asks_postgresql_as_every_other_route_does(database, tmp_path):
    with closing(FleetStore(FleetDatabase(database), Folder(tmp_path))) as store:
        store.beat("a worker", "worker", "offline", ["flux-2-pro"])
        found = asyncio.run(_visit(ServerState(Accounts(store=store), time.time)))
    statuses = {what: answer.status_code for what, answer in found.items()}
    assert statuses == {"session": 200, "tags": 200, "image": 404, "delete": 409, "events": 200, "ops": 200}
    assert found["tags"].json()["tags"] == ["poster"]
    assert b"event: task" in found["events"].content
    assert found["ops"].json()["queued"] == 1
