"""State on disk: what was accepted is there after a restart, a crash and a kill, and nothing else stays for ever."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from fluxwerk import Client, InvalidUsageError, StorageError, Task
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.store import DiskStore, Store
from fluxwerk.server.state.tasks import KEEP
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import blank
from fluxwerk.types import HttpRequest, Response
from support.asking import PRO, ask, json_of, kept, poll, post
from support.images import png, text
from support.process import process
from support.receiver import receiving

HOOK = {"webhook_url": "https://me.example/hook", "webhook_secret": "s3cret"}


class Idle:
    """An engine that is switched off before it has painted anything."""

    name = "idle"

    def render(self, _):
        raise AssertionError


@contextmanager
def living(folder: Path, at: float | None = None, **how) -> Iterator[FaceToFace]:
    """A service over the folder's state; at the end its process is gone."""
    disk = DiskStore(folder)
    face = FaceToFace(accounts=Accounts(store=disk), secret=disk.secret, keeps_keys=True, **how)
    if at is not None:
        face.clock.jump_to(at)
    face.state.resume()
    try:
        yield face
    finally:
        disk.close()


def never(face: FaceToFace) -> None:
    """Render nothing from now on, as a server that is killed."""
    face._stop_working()


def test_a_task_that_nobody_rendered_is_rendered_after_the_restart(tmp_path):
    with living(tmp_path) as of:
        never(of)
        submitted = post(of, {"prompt": "a fox", "width": 128, "height": 64, "seed": 5})
        assert poll(of, submitted)["status"] == "Pending"
    with living(tmp_path) as of:
        body = poll(of, submitted)
        assert (body["status"], body["cost"]) == ("Ready", 3)
        assert (body["result"]["prompt"], body["result"]["seed"]) == ("a fox", 5)
        assert ask(of, "GET", body["result"]["sample"], key=None).body == blank(128, 64)


def test_references_canvas_and_options_come_through(tmp_path):
    pictures = [png(64 + n, 64) for n in range(3)]
    fields = {"input_image": text(pictures[0]), "input_image_2": text(pictures[1]), "input_image_3": text(pictures[2])}
    fill = {"image": text(png(256, 300)), "mask": text(png(256, 300)), "guidance": 12.5}
    with living(tmp_path) as of:
        never(of)
        ids = [json_of(post(of, {"prompt": "x", "width": 72, "user": "u", "seed": None, **fields}))["id"]]
        ids.append(json_of(post(of, fill, "/v1/flux-pro-1.0-fill"))["id"])
        ids.append(json_of(post(of, {"image": text(png(256, 256)), "left": 7}, "/v1/flux-pro-1.0-expand"))["id"])
        before = [of.state.claim() for _ in ids]
    with living(tmp_path) as of:
        after = [kept(of.state)[identity] for identity in ids]
        orders = of.orders
    for old, new, order in zip(before, after, orders, strict=True):
        assert old.order == order
        assert (old.task, old.model, old.accepted, old.folder) == (new.task, new.model, new.accepted, new.folder)


def test_an_image_and_its_link_outlive_the_process(tmp_path):
    with living(tmp_path) as of:
        submitted = post(of, {"prompt": "x"})
        link = poll(of, submitted)["result"]["sample"]
    with living(tmp_path) as of:
        assert ask(of, "GET", link, key=None).body == blank(1024, 1024)
        assert poll(of, submitted)["status"] == "Ready"


def test_balances_and_idempotency_keys_outlive_the_process(tmp_path):
    def once(of: FaceToFace) -> Response:
        return ask(of, "POST", PRO, {"prompt": "x"}, **{"idempotency-key": "order-1"})

    with living(tmp_path) as of:
        first = once(of)
        post(of, {"prompt": "fluxwerk:error"})
    with living(tmp_path) as of:
        assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 1_000_000 - 3}
        assert once(of).body == first.body
        assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 1_000_000 - 3}


def test_an_ending_outlives_the_process(tmp_path):
    with living(tmp_path) as of:
        submitted = post(of, {"prompt": "fluxwerk:content-moderated=Hate"})
        before = poll(of, submitted)
    with living(tmp_path) as of:
        assert poll(of, submitted) == before


def test_a_slot_is_held_across_the_restart(tmp_path):
    with living(tmp_path) as of:
        never(of)
        for _ in range(24):
            post(of, {"prompt": "fluxwerk:pending-forever"})
    with living(tmp_path) as of:
        assert post(of, {"prompt": "x"}).status == 429


def test_a_lost_image_is_rendered_again(tmp_path):
    with living(tmp_path) as of:
        submitted = post(of, {"prompt": "x"})
        assert poll(of, submitted)["status"] == "Ready"
    (image,) = (file for file in (tmp_path / "images").rglob("*") if file.is_file())
    image.write_bytes(image.read_bytes()[:-20])
    with living(tmp_path) as of:
        link = poll(of, submitted)["result"]["sample"]
        assert ask(of, "GET", link, key=None).body == blank(1024, 1024)
        assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 1_000_000 - 3}


EDITS = {
    "an edit": (PRO, {"prompt": "x", "input_image": text(png(64, 64))}),
    "a fill": ("/v1/flux-pro-1.0-fill", {"image": text(png(256, 256)), "mask": text(png(256, 256))}),
    "an expand": ("/v1/flux-pro-1.0-expand", {"image": text(png(256, 256)), "left": 64}),
}


@pytest.mark.parametrize("kind", EDITS)
def test_a_lost_image_without_its_inputs_is_not_rendered(kind, tmp_path):
    """A lost image whose inputs are gone is not made without them and costs nothing."""
    path, body = EDITS[kind]
    with living(tmp_path) as of:
        submitted = post(of, {**body, **HOOK}, path)
        of.deliver_webhooks()
        assert poll(of, submitted)["status"] == "Ready"
    (image,) = (file for file in (tmp_path / "images").rglob("*") if file.is_file())
    image.unlink()
    for _ in range(2):
        with living(tmp_path) as of:
            of.deliver_webhooks()
            said_now = poll(of, submitted)
            assert (said_now["status"], said_now["details"]["error"], said_now["cost"]) == (
                "Error",
                "internal_error",
                0,
            )
            assert "are lost" in said_now["details"]["message"]
            assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 1_000_000}


def test_a_task_with_lost_inputs_fails_and_sends_its_webhook(tmp_path):
    """A task whose inputs are lost before it is rendered fails and says so to its webhook."""
    told: list[dict] = []
    with living(tmp_path) as of:
        never(of)
        submitted = post(of, {**EDITS["an edit"][1], **HOOK})
    for file in (tmp_path / "inputs").glob("*.reference*"):
        file.unlink()
    with living(tmp_path, receiver=lambda got: told.append(json.loads(got.body)) or Response(204)) as of:
        of.deliver_webhooks()
        assert poll(of, submitted)["status"] == "Error"
        assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 1_000_000}
    assert [(one["status"], one["error"]) for one in told] == [("Error", "internal_error")]


def test_an_image_that_disappears_is_not_found(tmp_path):
    with living(tmp_path) as of:
        link = poll(of, post(of, {"prompt": "x"}))["result"]["sample"]
        for file in (tmp_path / "images").rglob("*.jpeg"):
            file.unlink()
        assert ask(of, "GET", link, key=None).status == 404


def test_what_was_kept_long_enough_leaves_no_file(tmp_path):
    with living(tmp_path) as of:
        post(of, {"prompt": "x", "input_image": text(png(64, 64))})
        now = of.clock.now()
    with living(tmp_path, now + KEEP + 1) as of:
        assert json_of(ask(of, "GET", "/v1/tasks"))["tasks"] == []
    files = [file.name for file in tmp_path.rglob("*") if file.is_file() and not file.name.startswith("state.db")]
    assert files == []


def test_inputs_are_gone_when_the_image_is_there(tmp_path):
    with living(tmp_path) as of:
        post(of, {"prompt": "x", "input_image": text(png(64, 64))})
    assert not [file for file in (tmp_path / "inputs").rglob("*") if file.is_file()]


def test_a_webhook_that_was_not_acknowledged_goes_on_after_the_restart(tmp_path):
    got: list[float] = []
    with living(tmp_path, receiver=lambda _: Response(500)) as of:
        began = of.clock.now()
        identity = json_of(post(of, {"prompt": "x", **HOOK}))["id"]
        ask(of, "GET", "/v1/credits")
        of._post.deliver(of.clock.now() + 2)
        moment = of.clock.now()

    def receive(_: HttpRequest) -> Response:
        got.append(of.clock.now() - began)
        return Response(204)

    with living(tmp_path, moment, receiver=receive) as of:
        of.deliver_webhooks()
        row = json_of(ask(of, "GET", f"/v1/tasks/{identity}"))
    assert got == [6]
    assert row["webhook"]["state"] == "delivered"
    assert [one["outcome"] for one in row["webhook"]["attempts"]] == ["answered 500", "answered 500", "answered 204"]


def test_a_webhook_that_was_acknowledged_is_not_sent_again(tmp_path):
    with living(tmp_path) as of:
        post(of, {"prompt": "x", **HOOK})
        of.deliver_webhooks()
    again: list[HttpRequest] = []
    with living(tmp_path, receiver=lambda request: again.append(request) or Response(204)) as of:
        of.deliver_webhooks()
    assert again == []


def test_the_state_belongs_to_its_owner_and_holds_no_key(tmp_path):
    folder = tmp_path / "state"
    with living(folder) as of:
        post(of, {"prompt": "x"}, key="CANARY-key")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "state.db").stat().st_mode) == 0o600
    assert b"CANARY" not in b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_of_a_deleted_task_no_byte_is_left_in_the_folder(tmp_path):
    reference, prompt = png(72, 64), "CANARY in a coal mine"
    with living(tmp_path, caches=True) as of:
        post(of, {"prompt": prompt, "seed": 5, "input_image": text(reference)})
        (job,) = kept(of.state).values()
        image = of.state.store.image(job.image)
        assert image
        assert prompt.encode() in b"".join(file.read_bytes() for file in tmp_path.rglob("state.db*"))
        of.state.tasks.discard(job)
    left = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for secret in (prompt.encode(), image, reference, job.task.id.encode(), job.folder.encode()):
        assert secret not in left


def test_two_servers_do_not_share_a_folder(tmp_path):
    with living(tmp_path), pytest.raises(InvalidUsageError, match="does another server use it"):
        DiskStore(tmp_path)


def test_a_file_that_is_no_state_is_said(tmp_path):
    (tmp_path / "state.db").write_text("no database at all, but long enough to be looked at" * 9)
    with pytest.raises(InvalidUsageError, match="name another folder"):
        DiskStore(tmp_path)


def test_the_state_of_another_release_is_said(tmp_path):
    disk = DiskStore(tmp_path)
    with disk.database.write() as transaction:
        transaction.run("update fact set value = :value where name in ('version', 'oldest')", value=b"99")
    disk.close()
    with pytest.raises(InvalidUsageError, match="a newer fluxwerk"):
        DiskStore(tmp_path)


def test_a_task_that_cannot_be_written_is_neither_charged_nor_there(tmp_path):
    with living(tmp_path) as of:
        assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 1_000_000}
        of.state.store.database._connection.execute("drop table webhook")
        refused = post(of, {"prompt": "x", "input_image": text(png(64, 64)), **HOOK})
        assert (refused.status, json_of(refused)["error"]) == (503, "storage_unavailable")
        assert "no such table" in of.state.condition.error
        assert of.state.store.database.ask("select id from task") == []
        assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 1_000_000}
    assert not list((tmp_path / "inputs").iterdir())


def test_a_task_accepted_before_a_kill_is_rendered_after_it(tmp_path):
    """A task accepted before a kill is rendered after the restart and its webhook sent."""
    script = tmp_path / "trouble.toml"
    script.write_text('[[rule]]\non = "submit"\ndo = "stick"\n')
    state = ("--state", tmp_path / "state", "--allow-network", "127.0.0.0/8")
    with receiving() as (hook, got):
        with process(*state, "--trouble", script) as (base, running):
            body = {"prompt": "a fox", "width": 64, "height": 64, "seed": 7, "webhook_url": hook}
            task = httpx2.post(base + PRO, json=body, headers={"x-key": "key"}).json()
            assert httpx2.get(task["polling_url"]).json()["status"] == "Pending"
            running.send_signal(signal.SIGKILL)
            running.wait()
        assert got.empty()
        with process(*state, "--port", base.rpartition(":")[2]) as (again, _), Client("key", base_url=again) as client:
            told = json.loads(got.get(timeout=20)[1])
            image = client.download(client.wait(Task(task["id"], task["polling_url"]), timeout=10))
            assert (told["id"], told["status"]) == (task["id"], "Ready")
            assert (image.width, image.seed, client.credits()) == (64, 7, 1_000_000 - 3)
            assert image.data == httpx2.get(told["result"]["sample"]).content
        assert got.empty()


def test_every_account_comes_back_whole(tmp_path):
    keys = [f"key-{n}" for n in range(6)]
    with living(tmp_path) as of:
        for key in keys * 2:
            post(of, {"prompt": "x"}, key=key)
    with living(tmp_path) as of:
        for key in keys:
            assert len(json_of(ask(of, "GET", "/v1/tasks", key=key))["tasks"]) == 2
            assert json_of(ask(of, "GET", "/v1/credits", key=key)) == {"credits": 1_000_000 - 6}


def test_money_is_exact_across_restarts(tmp_path):
    for run in range(3):
        with living(tmp_path) as of:
            of.state.entropy = random.Random(run).randbytes
            post(of, {"prompt": "x"}, "/v1/flux-2-klein-4b")
    with living(tmp_path) as of:
        account = of.state.accounts.account("key")
        assert account.spent == Decimal("4.2")


def write_row(folder: Path, column: str, value: object) -> None:
    disk = DiskStore(folder)
    with disk.database.write() as transaction:
        transaction.run(f"update task set {column} = :value", value=value)
    disk.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("options", "{"),
        ("options", b"\xff\xfe"),
        ("options", "null"),
        ("options", "{}"),
        ("model", "flux-9"),
        ("input_mp", "many"),
        ("inputs", "[1"),
    ],
)
def test_a_damaged_row_is_put_aside_and_named_and_the_server_starts(tmp_path, caplog, column, value):
    with living(tmp_path) as of:
        submitted = json_of(post(of, {"prompt": "a fox"}))["id"]
    write_row(tmp_path, column, value)
    with living(tmp_path) as of:
        assert kept(of.state) == {}
        assert post(of, {"prompt": "a fox"}).status == 200
    assert f"task {submitted} of the state cannot be read" in caplog.text
    assert caplog.text.count("cannot be read") == 1
    disk = DiskStore(tmp_path)
    assert [row["id"] for row in disk.database.ask("select id from damaged")] == [submitted]
    disk.close()


def test_an_empty_state_file_is_refused_by_name(tmp_path):
    DiskStore(tmp_path).close()
    (tmp_path / "state.db").write_bytes(b"")
    with pytest.raises(InvalidUsageError, match=r"state\.db is empty \(0 bytes\)"):
        DiskStore(tmp_path)


@contextmanager
def full(of: FaceToFace) -> Iterator[None]:
    """Let the database take nothing more, as on a disk that is full."""
    connection = of.state.store.database._connection
    most = connection.execute("pragma max_page_count").fetchone()[0]
    used = connection.execute("pragma page_count").fetchone()[0]
    connection.execute("create table filler (value blob)")
    connection.execute(f"pragma max_page_count = {used}")
    with suppress(sqlite3.OperationalError):
        while True:
            connection.execute("insert into filler values (zeroblob(100))")
    yield
    connection.execute(f"pragma max_page_count = {most}")


def test_a_full_disk_refuses_submits_by_name_and_health_says_so(caplog):
    of = FaceToFace(accounts=Accounts(credit=Decimal(100)))
    with full(of):
        for _ in range(50):
            answer = post(of, {"prompt": "x" * 5000})
            assert (answer.status, answer.headers["retry-after"]) == (503, "30")
            assert json_of(answer)["error"] == "storage_unavailable"
        assert ask(of, "GET", "/healthz").status == 503
        assert caplog.text.count("cannot be written") == 1
        assert kept(of.state) == {}
        assert of.credits() == 100
    assert ask(of, "GET", "/healthz").status == 200
    assert post(of, {"prompt": "x"}).status == 200


class NoRoom(MemoryStorage):
    """A storage that takes no image while it is `full`."""

    full = False

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        if self.full:
            raise StorageError("Nothing can be stored (no space left).")
        return super().put(name, data, overwrite=overwrite)


@pytest.mark.parametrize("prompt", ["a fox", "fluxwerk:error"])
def test_an_image_that_no_disk_takes_waits_in_memory_until_one_does(prompt):
    told: list[str] = []
    storage = NoRoom()
    of = FaceToFace(
        accounts=Accounts(store=Store(StateFile(), storage)),
        receiver=lambda got: told.append(json.loads(got.body)["status"]) or Response(204),
    )
    storage.full = True
    submitted = post(of, {"prompt": prompt, **HOOK})
    of._post.deliver(of.clock.now() + 10)
    if prompt == "a fox":
        assert poll(of, submitted)["status"] == "Pending"
        assert "no space left" in of.state.condition.error
        storage.full = False
        of._post.deliver(of.clock.now() + 2)
        assert poll(of, submitted)["status"] == "Ready"
        assert of.state.condition.error is None
    of.deliver_webhooks()
    assert told == ["Ready" if prompt == "a fox" else "Error"]


def test_an_image_stays_when_the_move_was_made_but_its_answer_was_lost():
    """A worker that repeats what it began, after the database or the storage failed, removes no image that counts."""
    of = FaceToFace()
    submitted = post(of, {"prompt": "a fox"})
    [job] = kept(of.state).values()
    assert poll(of, submitted)["status"] == "Ready"
    image = of.state.store.image(job.image)
    assert image
    assert of.state.finish(job, image)
    assert of.state.store.image(job.image) == image


class FarStorage(MemoryStorage):
    """A storage that might be in a network."""

    blocks = True


@pytest.mark.parametrize(("storage", "is_dropped"), [(MemoryStorage, True), (FarStorage, False)])
def test_no_request_waits_until_a_far_storage_has_dropped_an_image(storage: type[MemoryStorage], *, is_dropped: bool):
    files = storage()
    of = FaceToFace(accounts=Accounts(store=Store(StateFile(), files)))
    made = post(of, {"prompt": "a fox"})
    [task] = kept(of.state).values()
    of.clock.sleep(KEEP + 1)
    assert poll(of, made)["status"] == "Task not found"
    assert (files.get(task.image) is None) is is_dropped
    # The background workers do so as time passes.
    of.state.forget()
    of.state.remove_files()
    assert files.get(task.image) is None
