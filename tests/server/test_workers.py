"""Webhooks over real HTTP: delivered, signed, guarded, retried, and sent after a restart."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import closing
from queue import Queue

import httpx2
import pytest

from fluxwerk.drive import drive
from fluxwerk.errors import ConnectionFailedError, NoResponseError
from fluxwerk.ledger.database import UnknownCommitError
from fluxwerk.protocol import webhook
from fluxwerk.server.fetch import Guard
from fluxwerk.server.router import Router
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.store import DiskStore, Store
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.state.webhooks import WebhookPolicy
from fluxwerk.server.workers import BackgroundWorkers
from fluxwerk.testing import FaceToFace, loopback
from fluxwerk.types import HttpRequest, Response
from support.asking import PRO, ask
from support.receiver import receiving

KEY = {"x-key": "a-key"}
HERE = ("127.0.0.0/8",)


def submit(base: str, url: str, **body: object) -> dict:
    wanted = {"prompt": "x", "width": 64, "height": 64, "webhook_url": url, "webhook_secret": "s3cret", **body}
    return httpx2.post(base + "/v1/flux-2-pro", json=wanted, headers=KEY).json()


def test_a_webhook_arrives_signed_and_its_image_can_be_fetched():
    with receiving() as (url, got), loopback() as base:
        task = submit(base, url)
        headers, body, _ = got.get(timeout=10)
        told = json.loads(body)
        assert told["id"] == task["id"]
        assert headers["x-bfl-signature"] == webhook.sign(body, "s3cret")
        assert "x-key" not in headers
        assert httpx2.get(told["result"]["sample"]).content[:2] == b"\xff\xd8"


def test_a_refused_webhook_comes_again_after_a_second_with_the_same_body():
    with receiving(500) as (url, got), loopback() as base:
        task = submit(base, url)
        (_, first, _), (_, second, _) = got.get(timeout=10), got.get(timeout=10)
        assert first == second
        row = {"webhook": {"state": "pending"}}
        while row["webhook"]["state"] == "pending":
            row = httpx2.get(f"{base}/v1/tasks/{task['id']}", headers=KEY).json()
        attempts = row["webhook"]["attempts"]
        assert [attempt["outcome"] for attempt in attempts] == ["answered 500", "answered 204"]
        assert 1 <= attempts[1]["at"] - attempts[0]["at"] < 3


class HangingStorage(MemoryStorage):
    """A storage in a network, where nothing can be removed until the test says so."""

    blocks = True

    def __init__(self) -> None:
        super().__init__()
        self.removing, self.going_on = threading.Event(), threading.Event()

    def remove(self, name: str) -> None:
        self.removing.set()
        self.going_on.wait(20)
        super().remove(name)


def test_a_deletion_that_hangs_delays_no_webhook():
    files = HangingStorage()
    store = Store(StateFile(), files)
    accounts = Accounts(store=store)
    with store.database.write() as transaction:
        accounts.tasks.removals.note(transaction, ["images/old.png"])
    with receiving() as (url, got), loopback(accounts=accounts) as base:
        assert files.removing.wait(10)
        task = submit(base, url, prompt="fluxwerk:content-moderated")
        assert json.loads(got.get(timeout=10)[1])["id"] == task["id"]
        assert not files.going_on.is_set()
        files.going_on.set()


class DoubtfulState(ServerState):
    """A state whose first answer to a process that takes webhooks is lost."""

    is_lost = False

    def take_webhooks(self, most: int) -> list[TaskRecord]:
        taken = super().take_webhooks(most)
        if taken and not self.is_lost:
            self.is_lost = True
            raise UnknownCommitError("The database was lost during a commit.")
        return taken


def test_a_webhook_is_delivered_though_it_was_taken_by_a_commit_that_was_not_confirmed():
    state = DoubtfulState(Accounts(), time.time, policy=WebhookPolicy(networks=HERE))
    workers = BackgroundWorkers(state, None, Guard(HERE))

    async def scene(hook: str, got: Queue) -> None:
        body = {"prompt": "fluxwerk:content-moderated", "width": 64, "height": 64, "webhook_url": hook}
        asked = HttpRequest("POST", "http://a.test/v1/flux-2-pro", json.dumps(body).encode(), headers=KEY)
        async with workers.open():
            answer = drive(Router(state).answer(asked), lambda *_: Response(404))
            _, told, _ = await asyncio.to_thread(got.get, timeout=10)
            assert json.loads(told)["id"] == json.loads(answer.body)["id"]

    with receiving() as (url, got):
        asyncio.run(scene(url, got))
    assert state.is_lost


def test_what_is_being_delivered_is_not_taken_again():
    of = FaceToFace(accounts=Accounts())
    for number in range(2):
        ask(of, "POST", PRO, {"prompt": "fluxwerk:content-moderated", "webhook_url": f"https://a.test/{number}"})
    first, second = (job.task.id for job in of.state.take_webhooks(9))
    of.state.return_webhooks({first})
    assert [job.task.id for job in of.state.take_webhooks(9)] == [second]


def test_a_redirect_is_not_followed():
    with receiving(302) as (url, got), loopback() as base:
        submit(base, url)
        assert [got.get(timeout=10)[2] for _ in range(2)] == ["/hook", "/hook"]


def test_without_leave_no_webhook_goes_inside():
    with receiving() as (url, got), loopback(allow=()) as base:
        answer = submit(base, url)
        assert answer["detail"][0]["loc"] == ["body", "webhook_url"]
        # By https it is accepted, and the guard refuses the address when it is due.
        task = submit(base, url.replace("http://", "https://"))
        row = {"webhook": {"attempts": []}}
        while not row["webhook"]["attempts"]:
            row = httpx2.get(f"{base}/v1/tasks/{task['id']}", headers=KEY).json()
        assert row["webhook"]["attempts"][0]["outcome"] == "its address is not a public one"
        assert got.empty()


def post(guard: Guard, url: str) -> int:
    return asyncio.run(guard.post(HttpRequest("POST", url, b"{}", headers={"x-a": "b"}))).status


async def public(_: str, __: int) -> list[str]:
    return ["93.184.216.34"]


async def here(_: str, __: int) -> list[str]:
    return ["127.0.0.1"]


def test_the_guard_refuses_plain_http_to_unnamed_hosts():
    """Plain http to a public host is refused by the guard unless the host was named."""
    with pytest.raises(ConnectionFailedError, match="not a public one"):
        post(Guard(resolve=public), "http://me.example/hook")
    with pytest.raises(ConnectionFailedError, match="not a public one"):
        # Named, so its address is judged as any other: this one leads inside.
        post(Guard(resolve=here, plain=["me.example"]), "http://me.example/hook")


def test_a_name_that_leads_into_an_allowed_network_is_told():
    with receiving() as (url, got):
        assert post(Guard(HERE, here), url.replace("127.0.0.1", "me.example")) == 204
        headers, body, _ = got.get(timeout=10)
        assert (headers["host"].partition(":")[0], headers["x-a"], body) == ("me.example", "b", b"{}")


@pytest.mark.parametrize("url", ["http://user@127.0.0.1/", "ftp://127.0.0.1/", "http://[half/", "http://127.0.0.1:0/"])
def test_what_is_no_plain_url_is_never_told(url):
    with pytest.raises(ConnectionFailedError):
        post(Guard(HERE), url)


def test_a_receiver_that_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(NoResponseError, match="in time"):
        post(Guard(HERE, patience=0.1), f"http://127.0.0.1:{deaf.getsockname()[1]}/")


def test_a_receiver_that_is_not_there_is_unreachable():
    with pytest.raises(NoResponseError, match="could not be reached"):
        post(Guard(HERE), "http://127.0.0.1:1/")


def test_webhooks_and_images_of_many_tasks_all_arrive():
    with receiving() as (url, got), loopback() as base:
        ids = {submit(base, url, seed=seed)["id"] for seed in range(12)}
        assert {json.loads(got.get(timeout=20)[1])["id"] for _ in ids} == ids


def test_neither_secret_nor_token_nor_signed_link_is_logged(caplog):
    with caplog.at_level("DEBUG"), receiving(500) as (url, got), loopback() as base:
        submit(base, f"{url}?token=CANARY", webhook_secret="CANARY")
        got.get(timeout=10)
        got.get(timeout=10)
    text = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "httpcore2" in text
    assert "CANARY" not in text
    assert "sig=" not in text


def test_what_was_kept_long_enough_goes_from_a_server_that_nobody_asks(tmp_path):
    with closing(DiskStore(tmp_path)) as store:
        of = FaceToFace(accounts=Accounts(store=store))
        of.generate("a fox", model="flux-2-pro", width=64, height=64)
        assert store.database.ask("select id from task")

        # By the real clock the image of the pretend one has been kept for years.
        with loopback(accounts=Accounts(store=store)) as base:
            while store.database.ask("select id from task"):
                assert httpx2.get(f"{base}/livez").is_success
    assert [file for file in (tmp_path / "images").rglob("*") if file.is_file()] == []
