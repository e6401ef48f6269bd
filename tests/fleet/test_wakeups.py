"""A webhook that one process of a fleet receives ends the wait of another one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import pytest

from fluxwerk import Client
from fluxwerk.ledger.postgresql import PostgresDatabase
from fluxwerk.polling.history import FILE_NAME, PollingHistory, kind_of
from fluxwerk.polling.schedule import ENOUGH
from fluxwerk.protocol.webhook import sign
from fluxwerk.protocol.wire import dump
from fluxwerk.server.loopback import loopback
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.fleet import FleetDatabase
from fluxwerk.server.state.wakeups import CHANNEL, FleetWakeup
from support.fleet import fleet, submit
from support.gateways import KEY

# Seconds after which a wait is over that nobody ended, and in which a notice arrives however busy the machine is.
NEVER, SOON = 40.0, 20.0
PUBLIC = "https://gateway.invalid"
FOX = {"prompt": "a fox", "width": 64, "height": 64}


@pytest.fixture
def pair(database: str) -> Iterator[tuple[FleetWakeup, FleetWakeup]]:
    """Two processes, of which the second listens."""
    with ExitStack() as opened:
        bases = [opened.enter_context(closing(PostgresDatabase(database))) for _ in range(2)]
        receives, waits = (opened.enter_context(closing(FleetWakeup(base, reopen=0.01))) for base in bases)
        waits.listen("anything")
        assert waits.is_listening.wait(SOON)
        yield receives, waits


def seconds_of_wait(waits: FleetWakeup, task: str) -> float:
    began = time.monotonic()
    waits.wait(task, NEVER)
    return time.monotonic() - began


def test_a_notification_ends_the_wait_of_another_process(pair: tuple[FleetWakeup, FleetWakeup]) -> None:
    receives, waits = pair
    with ThreadPoolExecutor(1) as other:
        waited = other.submit(seconds_of_wait, waits, "task")
        until(lambda: "1 tasks waited for" in repr(waits) or None)
        receives.notify("task")
        assert waited.result() < SOON


def test_a_notification_that_comes_before_the_wait_is_remembered(pair: tuple[FleetWakeup, FleetWakeup]) -> None:
    receives, waits = pair
    receives.notify("task")
    assert seconds_of_wait(waits, "task") < SOON


def test_a_process_listens_again_after_its_connection_was_lost(pair: tuple[FleetWakeup, FleetWakeup]) -> None:
    receives, waits = pair
    waits.is_listening.clear()
    ending = "select pg_terminate_backend(pid) from pg_stat_activity where query = :listen"
    assert receives._database.ask(ending, listen=f"listen {CHANNEL}")
    assert waits.is_listening.wait(SOON)
    receives.notify("task")
    assert seconds_of_wait(waits, "task") < SOON


def test_a_name_that_the_database_does_not_take_wakes_nobody_and_harms_nobody(
    pair: tuple[FleetWakeup, FleetWakeup],
) -> None:
    receives, waits = pair
    for odd in ("a\0b", "x" * 10_000, "task"):
        receives.notify(odd)
    assert seconds_of_wait(waits, "task") < SOON


def test_a_webhook_that_a_server_receives_wakes_the_worker_that_waits(database: str, tmp_path: Path) -> None:
    """The service cannot reach that address here, so the test delivers the webhook itself."""
    key, accounts = tmp_path / "key", Accounts([KEY])
    key.write_text(KEY)
    key.chmod(0o600)
    with (
        loopback(accounts=accounts, pace=lambda _: 1.0) as service,
        fleet(database, tmp_path, 0, 0) as running,
        closing(FleetDatabase(database)) as state,
    ):
        running.environment = {**os.environ, "FLUXWERK_CACHE": str(remembering_slow_tasks(service, tmp_path))}
        running.add_server("--public-url", PUBLIC)
        named = ("--engine", "upstream", "--upstream", service, "--upstream-key-file", str(key))
        running.add_worker(*named, "--public-url", PUBLIC)
        running.wait_ready()
        [base] = running.bases
        assert submit(base, "shop", FOX).status_code == 200
        bought = until(lambda: next((one for one in accounts.tasks.all(time.time()) if one.webhook), None))
        until(lambda: accounts.tasks.find(bought.task.id, time.time()).has_ended(time.time()) or None)
        began = time.monotonic()
        body = dump({"id": bought.task.id, "status": "Ready"})
        headers = {"x-bfl-signature": sign(body, bought.webhook.secret), "host": "gateway.invalid"}
        here = bought.webhook.url.replace(PUBLIC, base)
        assert httpx2.post(here, content=body, headers=headers).status_code == 200
        until(lambda: state.ask("select id from task where word = 'Ready'") or None)
        assert time.monotonic() - began < SOON


def remembering_slow_tasks(service: str, folder: Path) -> Path:
    """Let processes believe that a fox takes most of a minute: they poll behind its webhook once that has passed."""
    with Client(KEY, base_url=service) as client:
        kind = kind_of(client.submit(model="flux-2-pro", **FOX))
    history = PollingHistory(folder / "cache" / FILE_NAME)
    for _ in range(2 * round(ENOUGH)):
        history.learn(kind, 49.0, 51.0, 50.0)
    history.save()
    return folder / "cache"


def until(found):
    """Ask until something is there."""
    end = time.monotonic() + NEVER
    while (answer := found()) is None:
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)  # other processes work in their own time
    return answer
