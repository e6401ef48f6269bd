"""A webhook's whole journey: sent by our server, taken in by our receiver, over real HTTP on this machine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from fluxwerk import Client, Outcome
from fluxwerk.server.loopback import listen
from fluxwerk.webhook import Receiver

AGES = 60.0

pytest.importorskip("fluxwerk.server.notice", reason="this server sends no webhooks")


@pytest.fixture
def client(fluxwerk_server) -> Iterator[Client]:
    with Client("a-key", base_url=fluxwerk_server) as client:
        yield client


@pytest.fixture
def heard() -> queue.Queue:
    return queue.Queue()


@pytest.fixture
def receiver(client, heard) -> Iterator[Receiver]:
    with listen("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/hooks"
        receiver = Receiver("a-secret", heard.put, client=client, url=url, token="9f8e7d")
        server = uvicorn.Server(uvicorn.Config(receiver, log_config=None, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield receiver
        server.should_exit = True
        thread.join()


def test_whoever_naps_is_woken_and_whoever_listens_hears_of_each_task_once(client, receiver, heard):
    tasks = [client.submit("a fox", width=64, height=64, **receiver.options) for _ in range(3)]
    for task in tasks:
        receiver.expect(task)
    for task in tasks:
        receiver.bell.nap(task.id, AGES)
    statuses = [heard.get(timeout=AGES) for _ in tasks]

    assert {status.task for status in statuses} == set(tasks)
    assert {status.outcome for status in statuses} == {Outcome.READY}
    assert all(client.download(status).width == 64 for status in statuses)
    assert heard.empty()
