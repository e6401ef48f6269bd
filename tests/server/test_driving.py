"""Flows of a state that waits for a network run in threads, and what they send leaves from the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fluxwerk.errors import ConnectionFailedError
from fluxwerk.server.driving import FlowDriver
from fluxwerk.types import Call, Flow, HttpRequest, Response


def flow(seen: list[str]) -> Flow[int]:
    seen.append(threading.current_thread().name)
    try:
        yield Call(HttpRequest("GET", "http://a.test/"))
    except ConnectionFailedError:
        seen.append("lost")
    response = yield Call(HttpRequest("GET", "http://b.test/"), after=0.001)
    return response.status


async def send(request: HttpRequest, _: float | None) -> Response:
    assert threading.current_thread() is threading.main_thread()
    if "a.test" in request.url:
        raise ConnectionFailedError("it could not be reached")
    return Response(207)


@pytest.mark.parametrize("blocks", [False, True])
def test_a_flow_runs_to_its_result_wherever_it_runs(blocks):
    seen: list[str] = []
    assert asyncio.run(FlowDriver(blocks=blocks).drive(flow(seen), send)) == 207
    assert seen[0].startswith("state" if blocks else "MainThread")
    assert seen[1] == "lost"


@pytest.mark.parametrize("blocks", [False, True])
def test_what_a_flow_raises_reaches_its_caller(blocks):
    def broken() -> Flow[int]:
        yield Call(HttpRequest("GET", "http://b.test/"))
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(FlowDriver(blocks=blocks).drive(broken(), send))
