"""Canaries: a key and a signed query appear nowhere but on the wire."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2
import pytest

from fluxwerk import AsyncClient, Client, FluxwerkError, Task
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from fluxwerk.testing import FaceToFace, loopback
from fluxwerk.types import HttpRequest
from support import images

KEY = "CANARY-key-8c1f"
SIGNATURE = "CANARYsig"
BFL = "https://api.bfl.ai"
SAMPLE = f"https://delivery-eu1.bfl.ai/results/x/sample.png?se=2026&sig={SIGNATURE}"
TASK = {"id": "1", "polling_url": f"{BFL}/v1/get_result?id=1"}
IMAGE = images.png(64, 64)
READY = {"id": "1", "status": "Ready", "result": {"sample": SAMPLE}}


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Everything that was logged anywhere at DEBUG, and every warning."""
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")

        def text() -> str:
            records = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
            return "\n".join([*records, *(str(warning.message) for warning in warned)])

        yield text


def shown(error: BaseException) -> str:
    """What a person or a tracker sees of an error, with everything that hangs on it."""
    parts = ["".join(traceback.format_exception(error)), repr(error), str(error), repr(error.__dict__)]
    for other in (error.__cause__, error.__context__):
        if other is not None:
            parts += [shown(other), repr(getattr(other, "request", None) and vars(other.request))]
    return "\n".join(parts)


def assert_clean(text: str) -> None:
    assert "CANARY" not in text
    assert "sig=" not in text


def both(use: Callable[[object], object], **how: object) -> Iterator[object]:
    """Use either client in the same way."""
    with Client(KEY, **how) as client:
        yield use(client)

    async def run() -> object:
        async with AsyncClient(KEY, **how) as later:
            return await use(later)

    yield asyncio.run(run())


def test_a_whole_conversation_over_http_leaves_no_trace_in_the_logs(fluxwerk_server, heard):
    events = []
    how = {"base_url": fluxwerk_server, "on_event": events.append}
    for image in both(lambda client: client.generate("x", width=64, height=64), **how):
        assert_clean(repr(image) + str(image.task))
    text = heard()
    assert "httpcore2" in text
    assert "fluxwerk" in text
    assert_clean(text)
    assert_clean(repr(events))


def test_a_client_changes_no_logger_of_a_library():
    libraries = ("httpx2", "httpcore2", "httpcore2.http11", "httpcore2.http2", "hpack.hpack", "hpack.table")
    before = [list(logging.getLogger(name).filters) for name in libraries]
    with Client(KEY, http_client=httpx2.Client(transport=httpx2.MockTransport(serving))) as client:
        client.generate("x")
    assert [list(logging.getLogger(name).filters) for name in libraries] == before


def test_a_redirected_delivery_is_logged_without_its_signature(fluxwerk_server, heard):
    class Redirecting:
        """Answers every download by a redirect to a signed link, as a plain HTTP server."""

        def __init__(self, listening: socket.socket) -> None:
            self.listening = listening

        def serve(self) -> None:
            with suppress(OSError):
                while True:
                    line, _ = self.listening.accept()
                    with line:
                        line.recv(65536)
                        line.sendall(f"HTTP/1.1 302 Found\r\nLocation: {SAMPLE}\r\nContent-Length: 0\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=Redirecting(listening).serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/sample.png?sig={SIGNATURE}"
        for answer in both(lambda client: client.send(HttpRequest("GET", url), 5.0), base_url=fluxwerk_server):
            assert answer.headers["location"] == SAMPLE
        lent = httpx2.Client()
        with lent, Client(KEY, http_client=lent, base_url=fluxwerk_server) as client:
            assert client.send(HttpRequest("GET", url), 5.0).status == 302
        listening.shutdown(socket.SHUT_RDWR)
    text = heard()
    assert "receive_response_headers.complete return_value='…'" in text
    assert "HTTP Request: GET http://127.0.0.1" in text
    assert_clean(text)


def test_a_given_client_sends_the_whole_url_that_its_log_does_not_show(heard):
    seen: list[httpx2.URL] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url)
        return serving(request)

    with Client(KEY, http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        client.generate("x")
    assert seen[-1].query == SAMPLE.partition("?")[2].encode()
    assert [str(url) for url in seen] == [f"{BFL}/v1/flux-2-pro", TASK["polling_url"], f"{SAMPLE.partition('?')[0]}?…"]
    assert_clean(heard())


def test_the_log_of_packed_headers_is_kept_free_of_the_key(heard):
    with Client(KEY, http_client=httpx2.Client(transport=httpx2.MockTransport(serving))) as client:
        client.generate("x")
    logging.getLogger("hpack.hpack").debug("Adding %s to the header table", (b"x-key", KEY.encode()))
    logging.getLogger("hpack.hpack").debug("Adding %s to the header table", (b"accept", b"*/*"))
    assert "accept" in heard()
    assert_clean(heard())
    for name in ("hpack.hpack", "hpack.table"):
        logging.getLogger(name).filters.clear()


def serving(request: httpx2.Request) -> httpx2.Response:
    """Answer a whole conversation."""
    if request.method == "POST":
        return httpx2.Response(200, json=TASK)
    return httpx2.Response(200, json=READY) if "get_result" in request.url.path else httpx2.Response(200, content=IMAGE)


def refusing(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(403, json={"detail": f"no image at {SAMPLE}"})


def dead(request: httpx2.Request) -> httpx2.Response:
    if request.method == "POST":
        return httpx2.Response(200, json=TASK)
    return httpx2.Response(200, json=READY) if "get_result" in request.url.path else httpx2.Response(403)


def losing(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadError(f"lost on the way to {SAMPLE}", request=request)


def elsewhere(request: httpx2.Request) -> httpx2.Response:
    away = {**READY, "result": {"sample": SAMPLE.replace("https", "ftp")}}
    return httpx2.Response(200, json=TASK if request.method == "POST" else away)


@pytest.mark.parametrize("answer", [refusing, dead, losing, elsewhere], ids=lambda answer: answer.__name__)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_error_repeats_a_secret_wherever_it_is_looked_at(answer, kind, heard):
    events = []
    transport = httpx2.MockTransport(answer)

    def generate() -> object:
        if kind == "sync":
            http = httpx2.Client(transport=transport)
            return Client(KEY, http_client=http, on_event=events.append).generate("x", timeout=3)
        later = AsyncClient(KEY, http_client=httpx2.AsyncClient(transport=transport), on_event=events.append)
        return asyncio.run(later.generate("x", timeout=3))

    with pytest.raises(FluxwerkError) as caught:
        generate()
    assert_clean(shown(caught.value))
    assert_clean(repr(pickle.dumps(caught.value)))
    assert_clean(repr(events) + heard())


def test_nothing_that_can_be_printed_shows_the_key():
    client = Client(KEY)
    assert_clean(repr(client) + str(client) + repr(client.access) + repr(AsyncClient(KEY)))
    assert_clean(repr(HttpRequest("GET", SAMPLE, headers={"x-key": KEY})))


def test_a_ready_status_does_not_print_its_link():
    face = FaceToFace()
    status = face.wait(face.submit("x"))
    assert status.url
    assert "sig=" in status.url
    assert_clean(repr(status) + str(status) + repr(face.events) + repr(face.journal))


def test_a_secret_option_is_not_repeated_when_it_is_wrong():
    wrong = {"webhook_secret": [KEY]}
    with pytest.raises(FluxwerkError) as caught:
        Client(KEY).request("x", **wrong)
    assert_clean(shown(caught.value))


def test_the_server_logs_no_key_and_no_signature_either(heard):
    with loopback(accounts=Accounts([KEY])) as base, Client(KEY, base_url=base) as client:
        client.generate("x", width=64, height=64)
        with pytest.raises(FluxwerkError):
            client.submit("x", images=[f"{base}/nothing?sig={SIGNATURE}"], model="flux-2-pro")
    assert_clean(heard())


def test_the_log_of_requests_is_redacted_for_whoever_listens_to_it(fluxwerk_server, caplog):
    access = logging.getLogger("uvicorn.access")
    # uvicorn lets nothing of this log rise to the root, so a program listens at the log itself.
    access.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "uvicorn.access"):
            access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", SAMPLE, "1.1", 200)
            access.info("%(path)s", {"path": "no query"})
    finally:
        access.removeHandler(caplog.handler)
    assert "no query" in caplog.text
    assert_clean(caplog.text)


def test_the_server_keeps_no_key():
    state = ServerState(Accounts([KEY]), lambda: 0.0)
    state.accounts.account(KEY)
    assert_clean(repr(vars(state)) + repr(vars(state.accounts)))


def test_a_task_says_nothing_of_the_key():
    task = Task("1", f"{BFL}/v1/get_result?id=1")
    assert_clean(repr(task) + repr(pickle.dumps(task)))
