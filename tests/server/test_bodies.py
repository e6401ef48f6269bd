"""What a body may cost the server: judged before it is read, bounded while it is held."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2
import pytest

from fluxwerk import catalog
from fluxwerk.catalog.images import LARGEST_BYTES
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server import app as application
from fluxwerk.server.bodies import BodyLimits, too_large
from fluxwerk.server.fetch import Guard
from fluxwerk.server.inputs import largest_body
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from fluxwerk.testing import loopback
from support import images
from support.asking import PRO, face, fault, post

HEAD = "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{more}\r\n"


@contextmanager
def opened(base: str, length: int, *more: str, path: str = PRO) -> Iterator[socket.socket]:
    """Send the head of a request, and nothing of its body."""
    parts = urlsplit(base)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as line:
        more_ = "".join(f"{header}\r\n" for header in more)
        line.sendall(HEAD.format(path=path, host=parts.netloc, length=length, more=more_).encode())
        yield line


def status(line: socket.socket) -> int:
    return int(line.recv(65536).split(b" ", 2)[1])


def test_a_submit_without_a_key_is_refused_before_its_body():
    with loopback(accounts=Accounts(["known"])) as base:
        with opened(base, 200_000_000) as line:
            assert status(line) == 403
        with opened(base, 200_000_000, "x-key: other") as line:
            assert status(line) == 403


def test_a_submit_without_a_slot_is_refused_before_its_body():
    path = "/v1/flux-kontext-max"
    with loopback(pace=lambda _: 60.0) as base:
        for _ in range(6):
            assert httpx2.post(base + path, json={"prompt": "x"}, headers={"x-key": "key"}).status_code == 200
        with opened(base, 200_000_000, "x-key: key", path=path) as line:
            assert status(line) == 429


def test_a_repeated_submit_needs_no_slot():
    path, headers = "/v1/flux-kontext-max", {"x-key": "key", "idempotency-key": "one"}
    with loopback(pace=lambda _: 60.0, keeps_keys=True) as base:
        first = httpx2.post(base + path, json={"prompt": "x"}, headers=headers)
        for _ in range(5):
            httpx2.post(base + path, json={"prompt": "x"}, headers={"x-key": "key"})
        again = httpx2.post(base + path, json={"prompt": "x"}, headers=headers)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


def test_a_question_without_images_has_a_small_body():
    with loopback() as base, opened(base, 2_000_000, path="/v1/price") as line:
        assert status(line) == 413


@pytest.mark.parametrize(("path", "most"), [("/v1/flux-pro-1.1", 31), (PRO, 241), ("/v1/flux-3-image", 301)])
def test_a_submit_may_be_as_large_as_its_models_images(path, most):
    with loopback() as base:
        with opened(base, (most + 1) * 2**20, "x-key: key", "connection: close", path=path) as line:
            answer = line.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert f"at most {most} MB are read at this path".encode() in answer
        with opened(base, most * 2**20, "x-key: key", "expect: 100-continue", path=path) as line:
            assert line.recv(65536).startswith(b"HTTP/1.1 100 ")


def test_every_model_takes_all_its_images_at_their_largest():
    for model in catalog.list_models().values():
        encoded = -(-LARGEST_BYTES // 3) * 4
        assert largest_body(model, 1000) > model.references * encoded + 6000


def asked(limits: BodyLimits, *bodies: bytes, key: str = "key") -> list[httpx2.Response]:
    """Submit bodies one after the other, in process, under limits."""

    async def send() -> list[httpx2.Response]:
        app = application.build(ServerState(Accounts(), time.time), OfflineEngine(), Guard(), limits=limits)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test") as http:
            return [await http.post(PRO, content=body, headers={"x-key": key}) for body in bodies]

    return asyncio.run(send())


@pytest.mark.parametrize(("limits", "code"), [(BodyLimits(account=99), 429), (BodyLimits(total=99), 503)])
def test_bytes_above_what_may_be_held_are_refused_with_a_pause(limits, code):
    too_much, small = asked(limits, b"x" * 100, b"{}")
    assert (too_much.status_code, too_much.headers["retry-after"]) == (code, "1")
    assert small.status_code == 422


def test_bytes_that_an_answer_held_are_free_again():
    answers = asked(BodyLimits(account=99, total=99), *[b"x" * 60] * 3)
    assert [answer.status_code for answer in answers] == [422, 422, 422]


async def answered(app, receive, *more: tuple[bytes, bytes]) -> int:
    """Send one submit whose body comes from `receive`, and return the status of its answer."""
    sent = []

    async def keep(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": PRO, "raw_path": PRO.encode(), "query_string": b""}
    scope |= {"headers": [(b"x-key", b"key"), (b"host", b"fluxwerk.test"), *more], "scheme": "http", "root_path": ""}
    scope |= {"server": ("fluxwerk.test", 80), "client": ("127.0.0.1", 1), "http_version": "1.1"}
    await asyncio.wait_for(app(scope, receive, keep), 5)
    return sent[0]["status"]


def test_a_body_that_does_not_come_is_given_up():
    limits = BodyLimits(grace=0.05, rate=1_000_000)
    app = application.build(ServerState(Accounts(), time.time), OfflineEngine(), limits=limits)

    async def body():
        yield b"{"
        await asyncio.Event().wait()

    async def send() -> int:
        messages = body()

        async def receive():
            return {"type": "http.request", "body": await anext(messages), "more_body": True}

        return await answered(app, receive)

    assert asyncio.run(send()) == 408


def test_beside_many_short_bodies_a_sender_is_judged_before_its_body():
    limits = BodyLimits(unjudged=2)
    app = application.build(ServerState(Accounts(["known"]), time.time), OfflineEngine(), limits=limits)
    short = (b"content-length", b"100")

    async def run() -> list[int]:
        reading, arrived = asyncio.Semaphore(0), asyncio.Event()

        async def slow():
            reading.release()
            await arrived.wait()
            return {"type": "http.request", "body": b"x" * 100, "more_body": False}

        async def never():
            raise AssertionError("the body of an unknown sender was read")

        early = [asyncio.create_task(answered(app, slow, short)) for _ in range(2)]
        await reading.acquire()
        await reading.acquire()
        third = await answered(app, never, short)
        arrived.set()
        return [third, *await asyncio.gather(*early)]

    assert asyncio.run(run()) == [403, 403, 403]


def test_a_small_limit_is_said_in_bytes():
    assert "at most 10 bytes are read" in too_large(10).message
    assert "at most 3 MB are read" in too_large(3 * 2**20).message


def test_a_fetched_image_counts_for_its_account():
    with images_served() as url:

        async def send() -> httpx2.Response:
            app = application.build(
                ServerState(Accounts(), time.time),
                OfflineEngine(),
                Guard(("127.0.0.0/8",)),
                limits=BodyLimits(account=200),
            )
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test") as http:
                return await http.post(PRO, json={"prompt": "x", "input_image": url}, headers={"x-key": "key"})

        answer = asyncio.run(send())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


@contextmanager
def images_served() -> Iterator[str]:
    data = images.png(64, 64) + b"\0" * 400
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            line, _ = listening.accept()
            with line:
                line.recv(65536)
                line.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/fox.png"
        thread.join(5)


def test_a_prompt_has_a_maximum_in_bytes():
    of = face()
    assert post(of, {"prompt": "ü" * (16 * 1024)}).status == 200
    text = "Prompt has 32770 bytes; at most 32768 are taken"
    assert fault(post(of, {"prompt": "ü" * (16 * 1024 + 1)})) == (422, ["body", "prompt"], text)
