"""Trouble on a real line: what scripted rules do to TCP, seen by a bare HTTP library and by our own clients."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from urllib.parse import urlsplit

import httpx2
import pytest

from fluxwerk import AsyncClient, Client, InDoubtError, NoResponseError, TaskTimeoutError
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server import app as application
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from fluxwerk.testing import loopback

KEY = {"x-key": "a-key"}
SMALL = {"prompt": "x", "width": 64, "height": 64}


def submitted(base: str, **body) -> httpx2.Response:
    return httpx2.post(base + "/v1/flux-2-pro", json={**SMALL, **body}, headers=KEY, timeout=10)


def kept(base: str) -> int:
    return len(httpx2.get(base + "/v1/tasks", headers=KEY).json()["tasks"])


def raw(base: str, body: bytes) -> bytes:
    """Send a submit over a bare socket and read until the line ends."""
    where = urlsplit(base)
    head = f"POST /v1/flux-2-pro HTTP/1.1\r\nHost: localhost\r\nx-key: a-key\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=10) as line:
        line.sendall(head.encode() + body)
        return b"".join(iter(lambda: line.recv(65536), b""))


@pytest.mark.parametrize("accepted", [False, True])
def test_a_reset_breaks_the_line_before_or_after_acceptance(accepted, caplog):
    with loopback(trouble=[FaultRule(on="submit", do="reset", accepted=accepted)]) as base:
        with pytest.raises(ConnectionResetError):
            raw(base, json.dumps(SMALL).encode())
        assert kept(base) == accepted
    # The line was broken by us, not closed by uvicorn as an application's mistake.
    assert "ASGI" not in caplog.text


def test_a_cut_sends_the_whole_head_and_a_part_of_the_body():
    with loopback(trouble=[FaultRule(on="submit", do="cut", share=0.5)]) as base:
        head, _, body = raw(base, json.dumps(SMALL).encode()).partition(b"\r\n\r\n")
        promised = int(re.search(rb"content-length: (\d+)", head)[1])
        assert len(body) == promised // 2
        with pytest.raises(httpx2.RemoteProtocolError):
            submitted(base)


def test_a_stall_sends_a_part_and_then_nothing():
    with loopback(trouble=[FaultRule(on="poll", do="stall")]) as base:
        poll = submitted(base).json()["polling_url"]
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(poll, timeout=0.2)


def test_a_drip_arrives_drop_by_drop_and_whole():
    with loopback(trouble=[FaultRule(on="poll", do="drip", rate=1000)]) as base:
        poll = submitted(base).json()["polling_url"]
        with httpx2.stream("GET", poll) as answer:
            parts = list(answer.iter_raw())
    assert len(parts) > 1
    assert json.loads(b"".join(parts))["status"] in ("Pending", "Ready")


def test_a_delay_answers_later_and_whole():
    with loopback(trouble=[FaultRule(on="submit", do="delay", seconds=0.2)]) as base:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(base + "/v1/flux-2-pro", json=SMALL, headers=KEY, timeout=0.05)
        answer = submitted(base)
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.2


def test_a_client_that_leaves_ends_a_drip():
    with loopback(trouble=[FaultRule(on="poll", do="drip", rate=5)]) as base:
        poll = submitted(base).json()["polling_url"]
        with pytest.raises(httpx2.ReadTimeout), httpx2.stream("GET", poll, timeout=0.1) as answer:
            for _ in answer.iter_raw():
                pass
        assert kept(base) == 1


def test_a_page_a_redirect_and_a_status_arrive_as_such():
    rules = [
        FaultRule(on="submit", do="page", nth=1),
        FaultRule(on="submit", do="redirect", to="http://elsewhere.test/", nth=2),
        FaultRule(on="submit", do="status", status=503, retry_after=4, nth=3),
        FaultRule(on="submit", do="garble", nth=4),
    ]
    with loopback(trouble=rules) as base:
        page, redirect, busy, garbled = (submitted(base) for _ in range(4))
        assert page.headers["content-type"].startswith("text/html")
        assert (redirect.status_code, redirect.headers["location"]) == (302, "http://elsewhere.test/")
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "4")
        with pytest.raises(json.JSONDecodeError):
            garbled.json()
        assert kept(base) == 0


def test_the_blocking_client_survives_what_costs_nothing():
    rules = [
        FaultRule(on="poll", do="reset", nth=1),
        FaultRule(on="poll", do="cut", nth=2),
        FaultRule(on="download", do="cut", nth=1),
        FaultRule(on="download", do="truncate", nth=2),
    ]
    with loopback(trouble=rules) as base, Client("a-key", base_url=base) as client:
        assert client.generate("x", width=64, height=64, timeout=30).width == 64
        assert kept(base) == 1


@pytest.mark.parametrize("deed", ["reset", "cut"])
def test_the_asyncio_client_never_submits_again_what_it_lost(deed):
    async def run(base: str) -> None:
        async with AsyncClient("a-key", base_url=base) as client:
            await client.generate("x", width=64, height=64, timeout=20)

    with loopback(trouble=[FaultRule(on="submit", do=deed, accepted=True)]) as base:
        with pytest.raises(InDoubtError):
            asyncio.run(run(base))
        assert kept(base) == 1


def test_a_stalled_download_ends_at_the_deadline():
    with loopback(trouble=[FaultRule(on="download", do="stall")]) as base, Client("a-key", base_url=base) as client:
        with pytest.raises((TaskTimeoutError, NoResponseError)):
            client.generate("x", width=64, height=64, timeout=1.0)
        assert kept(base) == 1


@pytest.mark.parametrize("deed", ["reset", "cut"])
def test_in_process_a_broken_line_is_an_exception(deed):
    async def send() -> None:
        service = ServerState(Accounts(), lambda: 0.0, trouble=[FaultRule(on="submit", do=deed)])
        transport = httpx2.ASGITransport(application.build(service, OfflineEngine()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test") as http:
            await http.post("/v1/flux-2-pro", json=SMALL, headers=KEY)

    with pytest.raises(ConnectionResetError):
        asyncio.run(send())


def test_without_rules_lines_are_uvicorns_own():
    with loopback() as base:
        assert submitted(base).status_code == 200
