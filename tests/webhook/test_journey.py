"""A webhook's whole journey: sent by our server, taken in by our receiver, over real HTTP on this machine."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from fluxwerk import AsyncClient, Client, Outcome
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.loopback import listen
from fluxwerk.testing import loopback
from fluxwerk.webhook import Receiver

AGES = 60.0


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
        receiver.wakeup.wait(task.id, AGES)
    statuses = [heard.get(timeout=AGES) for _ in tasks]

    assert {status.task for status in statuses} == set(tasks)
    assert {status.outcome for status in statuses} == {Outcome.READY}
    assert all(client.download(status).width == 64 for status in statuses)
    assert heard.empty()


def test_a_client_that_listens_polls_once_and_at_the_end(receiver):
    events = []
    with (
        loopback(pace=lambda _: 0.4) as base,
        Client("a-key", base_url=base, webhook=receiver, on_event=events.append) as client,
    ):
        image = client.generate("a fox", width=64, height=64)

    assert image.width == 64
    assert [event.kind for event in events] == ["submitted", "polled", "ready", "downloaded"]
    assert events[-1].seconds < 2


def test_a_coroutine_that_listens_polls_once_and_at_the_end(receiver):
    events = []

    async def run(base):
        async with AsyncClient("a-key", base_url=base, webhook=receiver, on_event=events.append) as client:
            task = await client.submit("a fox", width=64, height=64)
            return await client.download(task)

    with loopback(pace=lambda _: 0.4) as base:
        assert asyncio.run(run(base)).width == 64
    assert [event.kind for event in events] == ["submitted", "polled", "ready", "downloaded"]


def test_a_forged_notification_costs_a_poll_and_changes_nothing_else(receiver):
    events = []

    def notify(event):
        events.append(event)
        if event.kind == "submitted":
            receiver.wakeup.notify(event.task.id)

    with (
        loopback(pace=lambda _: 0.4) as base,
        Client("a-key", base_url=base, webhook=receiver, on_event=notify) as client,
    ):
        assert client.generate("a fox", width=64, height=64).width == 64

    assert [event.kind for event in events] == ["submitted", "polled", "polled", "ready", "downloaded"]


def test_a_webhook_that_never_comes_changes_nothing_but_speed(receiver):
    events = []
    with (
        loopback(pace=lambda _: 0.1, trouble=[FaultRule(on="webhook", do="drop")]) as base,
        Client("a-key", base_url=base, webhook=receiver, on_event=events.append) as client,
    ):
        assert client.generate("a fox", width=64, height=64).width == 64

    assert [event.kind for event in events] == ["submitted", "polled", "ready", "downloaded"]
    assert events[-1].seconds >= 3
