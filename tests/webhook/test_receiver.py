"""The receiver: quick to answer, slow to believe, and it acts once."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import fastapi
import httpx2
import pytest

from fluxwerk import AsyncClient, InvalidUsageError, ModerationError, Outcome, Status, Task
from fluxwerk.client.wakeup import Wakeup
from fluxwerk.protocol.webhook import LARGEST_WEBHOOK
from fluxwerk.testing import FaceToFace
from fluxwerk.webhook import SIGNATURE, Receiver, read, sign
from fluxwerk.webhook.inbox import Inbox
from fluxwerk.webhook.receiver import _body

KEY = "CANARY-webhook-secret"
ADDRESS = "http://app.example"
AGES = 1000.0


def ready(task_id: str = "t1", **more: object) -> bytes:
    link = "https://delivery-eu1.bfl.ai/x?sig=CANARYsig"
    return json.dumps({"id": task_id, "status": "Ready", "result": {"sample": link}, **more}).encode()


def signed(body: bytes) -> dict[str, str]:
    return {SIGNATURE: sign(body, KEY)}


@asynccontextmanager
async def sender(app: Callable) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ADDRESS) as http:
        yield http


def post(receiver: Receiver, *bodies: bytes, path: str = "/hooks", headers: dict | None = None) -> list[int]:
    """Send webhooks one after the other, let the receiver act, and return the HTTP statuses of its answers."""

    async def run() -> list[int]:
        async with sender(receiver) as http:
            given = (headers if headers is not None else signed(body) for body in bodies)
            statuses = [
                (await http.post(path, content=b, headers=h)).status_code for b, h in zip(bodies, given, strict=True)
            ]
            await receiver.settle()
            return statuses

    return asyncio.run(run())


class Knowing(FaceToFace):
    """A client that counts its waits, with a server that has made one image for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[Task] = []

    def wait(self, task: Task, *, timeout: float | None = None) -> Status:
        self.waited.append(task)
        return super().wait(task, timeout=timeout)


@pytest.fixture
def client() -> Knowing:
    return Knowing()


@pytest.fixture
def heard() -> list[Status]:
    return []


def test_a_webhook_is_confirmed_by_a_poll(client, heard):
    """A proven webhook is acted upon with what the service says and not with what it says."""
    receiver = Receiver(KEY, heard.append, client=client)
    task = client.submit("a fox")
    receiver.expect(task)

    assert post(receiver, ready(task.id, prompt="forged")) == [200]

    (status,) = heard
    assert status.task == task
    assert status.outcome is Outcome.READY
    assert status.url.startswith("http://fluxwerk.test/results/")
    assert status.prompt == "a fox"


def test_a_webhook_that_lies_about_the_ending_changes_nothing(client, heard):
    receiver = Receiver(KEY, heard.append, client=client)
    task = client.submit("a fox")
    receiver.expect(task)

    assert post(receiver, json.dumps({"task_id": task.id, "status": "FAILED", "error": "x"}).encode()) == [200]

    assert [status.outcome for status in heard] == [Outcome.READY]


@pytest.mark.parametrize("body", [b"{}", ready()], ids=["nothing", "ready"])
def test_a_forged_webhook_is_refused_and_nobody_hears_of_it(body, client, heard):
    receiver = Receiver(KEY, heard.append, client=client)
    for headers in ({}, {SIGNATURE: sign(body, "another")}, {SIGNATURE: "sha256="}, {"x-webhook-secret": KEY}):
        assert post(receiver, body, headers=headers) == [401]
    assert heard == client.waited == []
    assert "0 notifications" in repr(receiver.wakeup)


def test_the_secret_itself_is_taken_where_that_was_chosen(client, heard):
    receiver = Receiver(KEY, heard.append, client=client, accept_secret_header=True)
    task = client.submit("a fox")
    receiver.expect(task)
    assert post(receiver, ready(task.id), headers={"X-Webhook-Secret": KEY}) == [200]
    assert post(receiver, ready(task.id), headers={"X-Webhook-Secret": "another"}) == [401]
    assert len(heard) == 1


def test_a_repeated_webhook_is_acknowledged_and_acted_upon_once(client, heard):
    """A webhook that comes many times is acknowledged each time and acted upon once."""
    receiver = Receiver(KEY, heard.append, client=client)
    task = client.submit("a fox")
    receiver.expect(task)
    both = ready(task.id), json.dumps({"task_id": task.id, "status": "SUCCESS"}).encode()

    assert post(receiver, *both * 3) == [200] * 6
    assert post(receiver, *both) == [200] * 2

    assert len(heard) == len(client.waited) == 1


def test_webhooks_in_any_order_find_their_tasks(client, heard):
    receiver = Receiver(KEY, heard.append, client=client)
    tasks = [client.submit("x") for _ in range(5)]
    for task in tasks:
        receiver.expect(task)
    post(receiver, *(ready(task.id) for task in reversed(tasks)))
    assert {status.task.id for status in heard} == {task.id for task in tasks}


def test_a_webhook_that_comes_before_its_task_is_told_of_is_kept_for_it(client, heard):
    receiver = Receiver(KEY, heard.append, client=client)
    task = client.submit("a fox")

    async def run() -> None:
        async with sender(receiver) as http:
            for _ in range(3):
                answer = await http.post("/", content=ready(task.id), headers=signed(ready(task.id)))
                assert answer.status_code == 200
                await receiver.settle()
            assert heard == []
            await asyncio.to_thread(receiver.expect, task)
            await asyncio.sleep(0)
            await receiver.settle()

    asyncio.run(run())
    assert [status.task for status in heard] == [task]


def test_a_task_may_be_looked_up_by_a_function_or_a_coroutine_function(client, heard):
    tasks = {task.id: task for task in (client.submit("x"), client.submit("y"))}
    first, second = tasks

    async def find(task_id: str) -> Task | None:
        return tasks.get(task_id)

    post(Receiver(KEY, heard.append, client=client, find=tasks.get), ready(first), ready("unknown"))
    post(Receiver(KEY, heard.append, client=client, find=find), ready(second))
    assert [status.task.id for status in heard] == [first, second]


def test_a_running_status_is_acknowledged_and_does_not_count(client, heard):
    """A news that the task still runs is acknowledged and does not count as its webhook."""
    receiver = Receiver(KEY, heard.append, client=client)
    task = client.submit("a fox")
    receiver.expect(task)
    running = json.dumps({"id": task.id, "status": "Generating", "progress": 0.5}).encode()
    assert post(receiver, running) == [200]
    assert heard == client.waited == []
    assert post(receiver, running, ready(task.id), running) == [200] * 3
    assert len(heard) == len(client.waited) == 1


def test_how_a_task_ended_badly_is_a_status_like_any_other(heard):
    class Ending(FaceToFace):
        def wait(self, task: Task, *, timeout: float | None = None) -> Status:
            if task.id == "m":
                raise ModerationError(
                    "no", stage="content", reasons=["Violence"], details={"Moderation Reasons": ["Violence"]}
                )
            return super().wait(task, timeout=timeout)

    class Broken:
        name = "broken"

        def render(self, _: object) -> bytes:
            raise RuntimeError("the engine fell over")

    client = Ending(engine=Broken())
    receiver = Receiver(KEY, heard.append, client=client)
    bad = client.submit("x")
    unknown = Task("u", f"{client.access.base}/v1/get_result?id=u")
    for task in (Task("m", unknown.polling_url), bad, unknown):
        receiver.expect(task)
        post(receiver, ready(task.id))

    assert [status.word for status in heard] == ["Content Moderated", "Error", "Task not found"]
    assert [status.outcome for status in heard] == [Outcome.MODERATED, Outcome.FAILED, Outcome.MISSING]
    assert heard[0].details == {"Moderation Reasons": ["Violence"]}


def test_a_failed_action_gets_a_second_try(client, caplog):
    """Whoever cannot act gets a second chance and nobody else is held up."""
    tried: list[str] = []

    def act(status: Status) -> None:
        tried.append(status.task.id)
        if len(tried) == 1:
            raise OSError("the disk is full")

    receiver = Receiver(KEY, act, client=client)
    tasks = [client.submit("x"), client.submit("y")]
    for task in tasks:
        receiver.expect(task)
    assert post(receiver, ready(tasks[0].id)) == [200]
    assert tasks[0].id in caplog.text
    assert post(receiver, ready(tasks[1].id), ready(tasks[0].id), ready(tasks[0].id)) == [200] * 3
    assert sorted(tried) == sorted([tasks[0].id, tasks[0].id, tasks[1].id])


def test_the_answer_does_not_wait_for_whoever_acts(client):
    may_go, begun = threading.Event(), threading.Event()

    def act(_: Status) -> None:
        begun.set()
        may_go.wait(AGES)

    receiver = Receiver(KEY, act, client=client)
    task = client.submit("x")
    receiver.expect(task)

    async def run() -> None:
        async with sender(receiver) as http:
            answer = await http.post("/", content=ready(task.id), headers=signed(ready(task.id)))
            assert answer.status_code == 200
            assert answer.json() == {"received": True}
            await asyncio.to_thread(begun.wait, AGES)
            assert "1 webhooks in progress" in repr(receiver)
            may_go.set()
            await receiver.settle()

    asyncio.run(run())
    assert "0 webhooks" in repr(receiver)


def test_too_many_at_once_are_asked_to_come_again(client):
    may_go = threading.Event()
    receiver = Receiver(KEY, lambda _: may_go.wait(AGES), client=client)
    receiver._inbox = Inbox(receiver.wakeup, lambda _: may_go.wait(AGES), client, most=2)
    tasks = [client.submit("x") for _ in range(3)]
    for task in tasks:
        receiver.expect(task)

    async def run() -> list[httpx2.Response]:
        async with sender(receiver) as http:
            answers = [await http.post("/", content=ready(t.id), headers=signed(ready(t.id))) for t in tasks]
            may_go.set()
            await receiver.settle()
            answers.append(await http.post("/", content=ready(tasks[2].id), headers=signed(ready(tasks[2].id))))
            await receiver.settle()
            return answers

    answers = asyncio.run(run())
    assert [answer.status_code for answer in answers] == [200, 200, 503, 200]
    assert answers[2].headers["retry-after"] == "5"


def test_a_task_is_notified_once_even_if_nothing_else_acts():
    receiver = Receiver(KEY)
    assert post(receiver, ready("a"), ready("a"), ready("b")) == [200] * 3
    assert "2 notifications remembered" in repr(receiver.wakeup)
    receiver.wakeup.wait("a", AGES)
    receiver.wakeup.wait("b", AGES)
    assert "0 notifications remembered" in repr(receiver.wakeup)


def test_a_wakeup_can_be_shared():
    wakeup = Wakeup()
    post(Receiver(KEY, wakeup=wakeup), ready("a"))
    wakeup.wait("a", AGES)
    assert "0 notifications remembered" in repr(wakeup)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_only_posts_are_taken(method):
    async def run() -> httpx2.Response:
        async with sender(Receiver(KEY)) as http:
            return await http.request(method, "/")

    answer = asyncio.run(run())
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_what_is_proven_and_unreadable_is_a_bad_request():
    bodies = [b"", b"not json", b"[]", b'{"status": "Ready"}', b'{"id": "a"}']
    assert post(Receiver(KEY), *bodies) == [400] * len(bodies)


def test_a_body_too_large_is_refused_by_its_length():
    """A body that is too large is refused by its length before it is read."""
    read: list[int] = []

    async def drip() -> AsyncIterator[bytes]:
        for _ in range(1000):
            read.append(1)
            yield b" " * 1024

    async def run() -> tuple[int, int]:
        async with sender(Receiver(KEY)) as http:
            told = await http.post("/", content=drip(), headers={"content-length": str(LARGEST_WEBHOOK + 1)})
            untold = await http.post("/", content=drip())
            return told.status_code, untold.status_code

    assert asyncio.run(run()) == (413, 413)
    assert len(read) <= LARGEST_WEBHOOK // 1024 + 2


def test_a_body_that_does_not_come_is_not_waited_for():
    async def never() -> dict:
        return await asyncio.get_running_loop().create_future()

    assert asyncio.run(_body({}, never, 0.01)).status == 408


def test_a_sender_that_hangs_up_gets_no_answer_and_does_no_harm():
    async def gone() -> dict:
        return {"type": "http.disconnect"}

    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(Receiver(KEY)({"type": "http", "method": "POST", "path": "/", "headers": []}, gone, send))
    assert sent == []


def test_without_the_token_nobody_gets_as_far_as_the_verification():
    receiver = Receiver(KEY, token="9f8e7d", url=f"{ADDRESS}/hooks")
    assert receiver.options == {"webhook_url": f"{ADDRESS}/hooks/9f8e7d", "webhook_secret": KEY}
    for path in ("/hooks", "/hooks/", "/", "/hooks/9f8e7", "/hooks/9f8e7d/x", "/9f8e7d9f8e7d", "/hooks/%00é"):
        assert post(receiver, ready(), path=path) == [404]
    for path in ("/hooks/9f8e7d", "/9f8e7d", "/hooks/9f8e7d/"):
        assert post(receiver, ready(), path=path) == [200]


def test_the_options_are_those_that_a_submit_takes(client):
    receiver = Receiver(KEY, url=f"{ADDRESS}/hooks")
    request = client.request("a fox", **receiver.options)
    assert request.fields["webhook_url"] == f"{ADDRESS}/hooks"
    with pytest.raises(InvalidUsageError, match="url='https://"):
        _ = Receiver(KEY).options


def test_it_mounts_in_fastapi(client, heard):
    app = fastapi.FastAPI()
    receiver = Receiver(KEY, heard.append, client=client, token="9f8e7d")
    app.mount("/hooks", receiver)
    task = client.submit("x")
    receiver.expect(task)

    async def run() -> list[int]:
        async with sender(app) as http:
            body = ready(task.id)
            answers = [
                await http.post(p, content=body, headers=signed(body)) for p in ("/hooks/9f8e7d", "/hooks/x", "/x")
            ]
            await receiver.settle()
            return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [200, 404, 404]
    assert len(heard) == 1


def test_an_async_client_and_a_coroutine_function_will_do():
    face, heard = FaceToFace(), []
    task = face.submit("a fox")

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url == task.polling_url
        result = {"sample": "https://delivery-eu1.bfl.ai/x?sig=CANARYsig", "prompt": "a fox"}
        return httpx2.Response(200, json={"id": task.id, "status": "Ready", "result": result})

    async def act(status: Status) -> None:
        heard.append(status.prompt)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    receiver = Receiver(KEY, act, client=AsyncClient("key", base_url=face.access.base, http_client=http))
    receiver.expect(task)
    assert post(receiver, ready(task.id)) == [200]
    assert heard == ["a fox"]


def test_the_end_of_the_server_waits_for_what_was_taken_in(client, heard):
    receiver = Receiver(KEY, heard.append, client=client)
    task = client.submit("x")
    receiver.expect(task)
    sent: list[str] = []

    async def run() -> None:
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict:
            return {"type": next(messages)}

        async def send(message: dict) -> None:
            sent.append(message["type"])

        async with sender(receiver) as http:
            await http.post("/", content=ready(task.id), headers=signed(ready(task.id)))
            await receiver({"type": "lifespan"}, receive, send)

    asyncio.run(run())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert len(heard) == 1


def test_a_websocket_is_shown_out():
    sent: list[str] = []

    async def send(message: dict) -> None:
        sent.append(message["type"])

    asyncio.run(Receiver(KEY)({"type": "websocket", "path": "/"}, send, send))
    assert sent == ["websocket.close"]


def test_acting_without_a_client_is_refused_when_it_is_set_up():
    with pytest.raises(InvalidUsageError, match="needs client="):
        Receiver(KEY, print)
    with pytest.raises(InvalidUsageError, match="secret is empty"):
        Receiver("")


def test_the_memory_is_bounded(client):
    inbox = Inbox(Wakeup(), print, client, remembered=10)

    async def run() -> None:
        for number in range(100):
            inbox.expect(Task(str(number), ""))
            inbox.take(read(ready(f"x{number}")))
        await inbox.settle()

    asyncio.run(run())
    assert [len(memory) for memory in (inbox._expected, inbox._early)] == [10, 10]
    assert len(inbox._accepted) <= 10


def test_no_log_record_repr_or_answer_shows_a_secret(client, heard, caplog):
    def act(_: Status) -> None:
        raise ZeroDivisionError

    receiver = Receiver(KEY, act, client=client, token="CANARYtoken", url=ADDRESS)
    task = client.submit("x")
    receiver.expect(task)
    said: list[str] = []

    async def run() -> None:
        async with sender(receiver) as http:
            tries = [
                signed(ready(task.id)),
                {},
                {"x-webhook-secret": KEY},
                {SIGNATURE: sign(b"CANARY", KEY)},
                {SIGNATURE: f"CANARY{KEY}"},
            ]
            for headers in tries:
                answer = await http.post("/CANARYtoken", content=ready(task.id), headers=headers)
                said.append(f"{answer.text} {answer.headers}")
            said.append((await http.post("/", content=b"")).text)
            await receiver.settle()

    with caplog.at_level(logging.DEBUG, "fluxwerk"):
        asyncio.run(run())
    records = "\n".join(
        f"{record.getMessage()} {record.exc_text}" for record in caplog.records if "httpx" not in record.name
    )
    assert "ZeroDivisionError" in records
    assert "CANARY" not in f"{records} {said} {receiver!r} {receiver._inbox!r} {receiver.wakeup!r}"
