"""What too many connections do to the server: a refusal and one line, and neither silence nor a flood."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2
import pytest
import uvicorn

from fluxwerk.server import descriptors
from fluxwerk.server.descriptors import OncePerMinute
from fluxwerk.server.loopback import listen
from fluxwerk.server.timed import TimedConnection
from support.process import process


@pytest.fixture
def few_descriptors():
    """Let this process, and those it starts, have few descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_three_quarters_of_the_descriptors_are_for_connections(few_descriptors):
    assert descriptors.connections() == 192


def record(number: int) -> logging.LogRecord:
    error = OSError(number, "Too many open files")
    return logging.LogRecord("asyncio", 40, "", 0, "socket.accept() out", (), (OSError, error, None))


def test_too_many_open_files_is_one_line_a_minute():
    now = [0.0]
    shown = OncePerMinute(lambda: now[0])
    first = record(errno.EMFILE)
    assert shown.filter(first)
    assert "ulimit -n" in first.getMessage()
    assert first.exc_info is None
    assert [shown.filter(record(errno.EMFILE)) for _ in range(3)] == [False] * 3
    assert shown.filter(record(errno.EPIPE))
    now[0] = 60.0
    assert shown.filter(record(errno.EMFILE))


class HastyConnection(TimedConnection):
    head_seconds = 0.05


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET"])
def test_a_connection_without_a_complete_head_is_closed(sent):
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask() -> bytes:
        config = uvicorn.Config(app, http=HastyConnection, lifespan="off", log_config=None)
        with listen("127.0.0.1", 0) as listening:
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([listening]))
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 4)
            writer.close()
            server.should_exit = True
            await serving
            return answer

    assert asyncio.run(ask()).count(b" 204 ") == sent.count(b"\r\n\r\n")


def test_idle_connections_are_answered_with_503_and_the_next_one_served(few_descriptors):
    with process() as (base, running):
        parts = urlsplit(base)
        with ExitStack() as idle:
            for _ in range(200):
                idle.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=10))
            assert httpx2.get(base + "/healthz", timeout=10).status_code == 503
        # The server may still be reading that the idle ones are gone.
        answers = (httpx2.get(base + "/healthz", timeout=10).status_code for _ in range(100))
        assert 200 in answers
        running.terminate()
        assert running.stderr.read().count("No connection can be accepted") <= 1
