"""Both clients at their send seam: what leaves, what arrives, what is lost, and when it ends."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from urllib.parse import urlsplit

import httpx2
import pytest
from PIL import Image

from fluxwerk import (
    AsyncClient,
    AuthenticationError,
    Client,
    ConnectionFailedError,
    FluxwerkError,
    InDoubtError,
    InvalidUsageError,
    MissingKeyError,
    NoResponseError,
    Task,
    TaskTimeoutError,
    TransportError,
    UntrustedURLError,
    catalog,
)
from fluxwerk.catalog import rows, sizes
from fluxwerk.client import transport
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server.app import build
from fluxwerk.server.fetch import Guard
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from fluxwerk.testing import PretendClock, loopback
from fluxwerk.types import Event, HttpRequest, Outcome, Pool, Response, Status
from support import images

KEY = "a-secret-key"
BFL = "https://api.bfl.ai"
SAMPLE = "https://delivery-eu1.bfl.ai/results/x/sample.png?sig=CANARY"
PICTURE = images.png(64, 64)
TASK = {"id": "1", "polling_url": f"{BFL}/v1/get_result?id=1", "cost": 3}
READY = {"id": "1", "status": "Ready", "result": {"sample": SAMPLE, "seed": 7}}
Answer = Callable[[httpx2.Request], httpx2.Response]


class Asked:
    """One way to use a client, so that each test speaks to both: `await` is hidden in `do`."""

    def __init__(self, kind: str) -> None:
        self.is_async = kind == "async"

    def client(self, answer: Answer | None = None, **how: object) -> Client | AsyncClient:
        if answer is not None:
            made = httpx2.AsyncClient if self.is_async else httpx2.Client
            how["http_client"] = made(transport=httpx2.MockTransport(answer))
        return (AsyncClient if self.is_async else Client)(KEY, **how)

    def do(self, of: Client | AsyncClient, name: str, *given: object, **how: object) -> object:
        if not self.is_async:
            with of:
                return getattr(of, name)(*given, **how)

        async def run() -> object:
            async with of:
                return await getattr(of, name)(*given, **how)

        return asyncio.run(run())


@pytest.fixture(params=["sync", "async"])
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


def conversation(seen: list[httpx2.Request] | None = None, **instead: httpx2.Response) -> Answer:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(request)
        if request.method == "POST":
            return instead.get("submit", httpx2.Response(200, json=TASK))
        if "get_result" in request.url.path:
            return instead.get("poll", httpx2.Response(200, json=READY))
        return instead.get("download", httpx2.Response(200, content=PICTURE))

    return answer


def raising(trouble: Exception) -> Answer:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise trouble

    return answer


class ClientLeftError(Exception):
    """The client hung up while the host was still serving."""


# The deadline of a socket passes in real time.  No test reads a clock: a host that gets to the end of its script shows
# a client that gave up too late, and one that is left before its turn a client that gave up too early.
@contextmanager
def host(serve: Callable[[socket.socket], None], finished: list[str] | None = None) -> Iterator[str]:
    """A host on loopback that treats each connection in its own way; `finished` names what was served to its end."""
    done = [] if finished is None else finished
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)

        def accept() -> None:
            while True:
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                with line:
                    try:
                        line.settimeout(5)
                        line.recv(65536)
                        serve(line)
                        done.append(serve.__name__)
                    except (OSError, ClientLeftError):
                        pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def pause(line: socket.socket, seconds: float) -> None:
    """Wait, and raise `ClientLeftError` as soon as the client hangs up."""
    line.settimeout(seconds)
    with suppress(TimeoutError):
        # What is left of the request may still arrive.
        while line.recv(65536):
            pass
        raise ClientLeftError


def drip(line: socket.socket, drips: int = 300) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(drips):
        line.sendall(b" ")
        pause(line, 0.01)


def hang(line: socket.socket) -> None:
    pause(line, 3.0)


def cut(line: socket.socket) -> None:
    line.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id": "1"')


def chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if one not in found:
            found.append(one)
            left += [other for other in (one.__context__, one.__cause__) if other]
    return found


def test_a_conversation_is_submit_poll_and_download(asked):
    seen: list[httpx2.Request] = []
    image = asked.do(asked.client(conversation(seen)), "generate", "a fox", width=64, height=64)
    assert (image.data, image.seed, image.cost, image.model) == (PICTURE, 7, 3, "flux-2-pro")
    assert [request.method for request in seen] == ["POST", "GET", "GET"]
    assert json.loads(seen[0].content) == {"prompt": "a fox", "width": 64, "height": 64}
    assert str(seen[0].url) == f"{BFL}/v1/flux-2-pro"
    assert seen[0].headers["content-type"] == "application/json"
    assert seen[0].headers["user-agent"].startswith("fluxwerk/")


def test_each_step_can_be_taken_alone(asked):
    task = asked.do(asked.client(conversation()), "submit", "x")
    assert task == Task("1", TASK["polling_url"], "flux-2-pro", Decimal(3))
    status = asked.do(asked.client(conversation()), "wait", task)
    assert asked.do(asked.client(conversation()), "download", status).data == PICTURE
    assert asked.do(asked.client(conversation()), "download", task).data == PICTURE


def test_the_balance_is_asked_for(asked):
    of = asked.client(lambda _: httpx2.Response(200, json={"credits": 12.5}))
    assert asked.do(of, "credits") == Decimal("12.5")


def test_the_key_rides_to_the_service_and_never_to_the_delivery_host(asked):
    seen: list[httpx2.Request] = []
    asked.do(asked.client(conversation(seen)), "generate", "x")
    assert [request.headers.get("x-key") for request in seen] == [KEY, KEY, None]
    assert not any(KEY in str(request.url) or KEY.encode() in request.content for request in seen)


def test_a_server_of_ones_own_may_deliver_from_a_plain_host_it_is_told(asked: Asked):
    task = {"id": "1", "polling_url": "http://gateway.internal/v1/get_result?id=1"}
    ready = {"id": "1", "status": "Ready", "result": {"sample": "http://store.internal:9000/a.png?sig=CANARY"}}
    seen: list[httpx2.Request] = []
    answers = conversation(seen, submit=httpx2.Response(200, json=task), poll=httpx2.Response(200, json=ready))

    told = asked.client(answers, base_url="http://gateway.internal", delivery_hosts=["store.internal"])
    assert asked.do(told, "generate", "a fox", model="flux-2-pro").data == PICTURE
    assert seen[-1].url.host == "store.internal"
    assert "x-key" not in seen[-1].headers

    untold = asked.client(answers, base_url="http://gateway.internal")
    with pytest.raises(UntrustedURLError, match="may not be followed"):
        asked.do(untold, "generate", "a fox", model="flux-2-pro")


@pytest.mark.parametrize("where", ["https://evil.test/poll", "http://api.bfl.ai/poll", "https://api.bfl.ai.evil.test/"])
def test_a_polling_url_of_somebody_else_is_not_asked_at_all(asked, where):
    seen: list[httpx2.Request] = []
    answer = conversation(seen, submit=httpx2.Response(200, json={**TASK, "polling_url": where}))
    with pytest.raises(UntrustedURLError) as caught:
        asked.do(asked.client(answer), "generate", "x")
    assert [request.method for request in seen] == ["POST"]
    assert caught.value.task.polling_url == where


def test_a_redirected_submit_or_poll_is_not_followed(asked):
    seen: list[httpx2.Request] = []
    away = httpx2.Response(307, headers={"location": "https://evil.test/"})
    for instead in ({"submit": away}, {"poll": away}):
        with pytest.raises(FluxwerkError):
            asked.do(asked.client(conversation(seen, **instead)), "generate", "x", timeout=0.2)
    assert {request.url.host for request in seen} == {"api.bfl.ai"}


def test_redirects_are_not_followed_even_if_the_given_client_would():
    seen: list[httpx2.Request] = []
    away = httpx2.Response(307, headers={"location": "https://evil.test/"})
    http = httpx2.Client(transport=httpx2.MockTransport(conversation(seen, submit=away)), follow_redirects=True)
    with http, pytest.raises(FluxwerkError):
        Client(KEY, http_client=http).submit("x")
    assert [request.url.host for request in seen] == ["api.bfl.ai"]


def test_a_redirected_download_goes_on_without_the_key(asked):
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "delivery-eu1.bfl.ai":
            seen.append(request)
            return httpx2.Response(302, headers={"Location": "https://api.bfl.ai/elsewhere"})
        return conversation(seen)(request)

    assert asked.do(asked.client(answer), "generate", "x").data == PICTURE
    assert [request.headers.get("x-key") for request in seen] == [KEY, KEY, None, None]


def test_without_a_key_the_way_to_one_is_said(asked, monkeypatch):
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    for key in (None, "", "  "):
        with pytest.raises(MissingKeyError) as caught:
            (AsyncClient if asked.is_async else Client)(key)
    assert all(word in str(caught.value) for word in ("https://dashboard.bfl.ai", "BFL_API_KEY", "--offline"))


def test_the_key_comes_from_the_environment_unless_it_is_given(monkeypatch):
    monkeypatch.setenv("BFL_API_KEY", " from-outside\n")
    assert Client().access.key == "from-outside"
    assert Client("given").access.key == "given"


@pytest.mark.parametrize("key", ["two words", "käse", "tab\tkey", "line\nkey"])
def test_a_key_that_no_header_could_carry_is_refused_without_repeating_it(key):
    with pytest.raises(MissingKeyError) as caught:
        Client(key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "base"),
    [
        ({}, BFL),
        ({"region": "global"}, BFL),
        ({"region": "eu"}, "https://api.eu.bfl.ai"),
        ({"region": "us"}, "https://api.us.bfl.ai"),
        ({"base_url": "http://127.0.0.1:8000/"}, "http://127.0.0.1:8000"),
    ],
)
def test_a_region_or_a_base_url_says_where_the_requests_go(asked, how, base):
    seen: list[httpx2.Request] = []
    asked.do(asked.client(conversation(seen), **how), "submit", "x")
    assert str(seen[0].url) == f"{base}/v1/flux-2-pro"


@pytest.mark.parametrize("how", [{"region": "mars"}, {"region": "eu", "base_url": BFL}, {"base_url": "api.bfl.ai"}])
def test_a_place_that_is_none_is_a_mistake(how):
    with pytest.raises(InvalidUsageError):
        Client(KEY, **how)


def test_a_request_is_built_and_priced_without_sending():
    of = Client(KEY)
    assert of.request("x", model="flux-2-flex", steps=20).fields["steps"] == 20
    assert of.estimate("flux-2-pro", 1920, 1080) == Decimal("4.5")
    assert of.estimate() == 3
    with pytest.raises(InvalidUsageError):
        of.request("x", model="flux-2-flex", steps=99)


def test_a_closed_port_is_tried_again_until_the_deadline(asked):
    """Nobody listening is unreachable and tried again until the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    events = []
    of = asked.client(base_url=f"http://127.0.0.1:{port}", on_event=events.append)
    with pytest.raises((ConnectionFailedError, TaskTimeoutError)):
        asked.do(of, "submit", "x", timeout=0.7)
    assert {event.kind for event in events} == {"retrying", "failed"}


NEVER_LEFT = [
    httpx2.ConnectError("refused"),
    httpx2.ConnectTimeout("slow"),
    httpx2.PoolTimeout("full"),
    httpx2.ProxyError("407"),
    httpx2.UnsupportedProtocol("gopher"),
    httpx2.InvalidURL("none"),
]
LEFT = [
    httpx2.ReadTimeout("slow"),
    httpx2.WriteTimeout("slow"),
    httpx2.ReadError("reset"),
    httpx2.WriteError("reset"),
    httpx2.CloseError("reset"),
    httpx2.RemoteProtocolError("noise"),
    httpx2.DecodingError("gzip"),
    httpx2.LocalProtocolError("over HTTP/2 an answer that breaks the rules is called so as well"),
]


@pytest.mark.parametrize("trouble", NEVER_LEFT, ids=lambda trouble: type(trouble).__name__)
def test_what_never_left_is_unreachable(asked, trouble):
    assert type(lost(asked, trouble)) is ConnectionFailedError


@pytest.mark.parametrize("trouble", LEFT, ids=lambda trouble: type(trouble).__name__)
def test_what_left_and_was_lost_is_unanswered(asked, trouble):
    assert type(lost(asked, trouble)) is NoResponseError


def lost(asked: Asked, trouble: Exception) -> TransportError:
    with pytest.raises(TransportError) as caught:
        asked.do(asked.client(raising(trouble)), "send", HttpRequest("GET", BFL), 1.0)
    assert chain(caught.value) == [caught.value]
    return caught.value


@pytest.mark.parametrize("trouble", LEFT, ids=lambda trouble: type(trouble).__name__)
def test_a_submit_that_left_is_in_doubt_without_a_foreign_cause(asked, trouble):
    """A submit that left is in doubt and drags nothing of the http library along."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        raise trouble

    with pytest.raises(InDoubtError) as caught:
        asked.do(asked.client(answer), "submit", "x", timeout=0.3)
    # What follows asks whether the server keeps the submit's key, and costs nothing.
    assert [request.method for request in seen].count("POST") == 1
    assert {type(error).__module__ for error in chain(caught.value)} == {"fluxwerk.errors"}


def test_a_fault_that_is_no_loss_is_not_hidden(asked):
    with pytest.raises(ZeroDivisionError):
        asked.do(asked.client(raising(ZeroDivisionError())), "submit", "x")


def test_a_refusal_keeps_what_was_said(asked):
    refused = httpx2.Response(403, json={"detail": "Not authenticated"})
    with pytest.raises(AuthenticationError, match="Not authenticated") as caught:
        asked.do(asked.client(conversation(submit=refused)), "submit", "x")
    assert caught.value.status == 403


@pytest.mark.parametrize(("serve", "ends"), [(cut, ["cut"]), (hang, []), (drip, [])], ids=["cut", "hang", "drip"])
def test_a_submit_whose_answer_is_cut_or_late_is_in_doubt(asked, serve, ends):
    finished: list[str] = []
    with host(serve, finished) as base, pytest.raises(InDoubtError) as caught:
        asked.do(asked.client(base_url=base), "submit", "x", timeout=0.3)
    # The second connection asks whether the server keeps the submit's key.
    assert finished[:1] == ends
    assert {type(error).__module__ for error in chain(caught.value)} <= {
        "fluxwerk.errors",
        "builtins",
        "asyncio.exceptions",
    }


def test_a_dripping_poll_ends_at_the_deadline_with_the_task(asked):
    finished: list[str] = []
    with host(drip, finished) as base:
        task = Task("1", f"{base}/v1/get_result?id=1")
        with pytest.raises(TaskTimeoutError) as caught:
            asked.do(asked.client(base_url=base), "wait", task, timeout=0.4)
    assert finished == []
    assert caught.value.task == task


def test_the_deadline_counts_the_wait_for_the_head_too(asked):
    """A deadline that began anew with the head would end 0.3 seconds after the drip does."""
    finished: list[str] = []

    def slow(line: socket.socket) -> None:
        pause(line, 0.6)
        drip(line, 50)

    with host(slow, finished) as base, pytest.raises(NoResponseError):
        asked.do(asked.client(base_url=base), "send", HttpRequest("GET", base), 0.8)
    assert finished == []


def late(line: socket.socket, reached: list[str], finished: list[str]) -> None:
    """Stall just before the deadline, when a single read might last as long again, and for less than that."""
    pause(line, 0.6)
    reached.append("late")
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    pause(line, 0.6)
    finished.append("late")


def headless(line: socket.socket, reached: list[str], finished: list[str]) -> None:
    """Drip a head that never ends."""
    line.sendall(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    for number in range(120):
        line.sendall(b"x")
        pause(line, 0.01)
        if number == 40:
            reached.append("headless")
    finished.append("headless")


def assert_given_up_in_time(
    asked: Asked, of: Client | AsyncClient, url: str, steps: tuple[list[str], list[str]]
) -> None:
    """Assert that the client stays while the host may still answer, and gives up before it has finished."""
    with pytest.raises(NoResponseError):
        asked.do(of, "send", HttpRequest("GET", f"{url}/v1/credits"), 0.8)
    reached, finished = (list(step) for step in steps)
    assert (len(reached), finished) == (1, [])


@pytest.mark.parametrize("serve", [late, headless], ids=lambda serve: serve.__name__)
@pytest.mark.parametrize("lent", [False, True], ids=["ours", "lent"])
def test_a_stalled_answer_ends_at_the_deadline(asked, serve, lent):
    """An answer that stalls is given up at the deadline whoever holds the line."""
    steps: tuple[list[str], list[str]] = ([], [])
    with host(lambda line: serve(line, *steps)) as base:
        http = (httpx2.AsyncClient() if asked.is_async else httpx2.Client()) if lent else None
        assert_given_up_in_time(asked, asked.client(base_url=base, http_client=http), base, steps)


def test_an_answer_that_stalls_behind_a_proxy_is_given_up_at_the_deadline(monkeypatch):
    blocking = Asked("sync")
    steps: tuple[list[str], list[str]] = ([], [])
    with host(lambda line: late(line, *steps)) as base:
        monkeypatch.setenv("http_proxy", base)
        monkeypatch.setenv("no_proxy", "")
        elsewhere = "http://service.invalid"
        assert_given_up_in_time(blocking, blocking.client(base_url=elsewhere), elsewhere, steps)


def test_without_a_deadline_a_body_may_take_its_time(asked):
    assert asked.do(asked.client(conversation()), "send", HttpRequest("GET", SAMPLE), None).body == PICTURE


def test_an_answer_without_end_is_cut_off(asked):
    part = b"x" * (32 * 2**20)

    class Endless(httpx2.SyncByteStream, httpx2.AsyncByteStream):
        def __iter__(self):
            while True:
                yield part

        async def __aiter__(self):
            while True:
                yield part

    with pytest.raises(NoResponseError, match=str(transport.LARGEST_BODY)):
        asked.do(asked.client(lambda _: httpx2.Response(200, stream=Endless())), "send", HttpRequest("GET", BFL), None)


def test_an_asyncio_client_outlives_its_event_loops(fluxwerk_server):
    of = AsyncClient(KEY, base_url=fluxwerk_server)
    images = [asyncio.run(of.generate("x", width=64, height=64, seed=1)) for _ in range(2)]
    assert images[0].data == images[1].data
    asyncio.run(of.close())
    # Connections that were left open with a loop would warn when they are collected, and warnings are errors here.
    del of
    gc.collect()


def test_event_loops_in_several_threads_do_not_cut_each_others_lines():
    ended: list[object] = []

    async def many(of: AsyncClient) -> None:
        ended.extend(
            await asyncio.gather(*(of.generate("x", width=64, height=64) for _ in range(4)), return_exceptions=True)
        )

    with loopback(pace=lambda _: 0.2) as base:
        of = AsyncClient(KEY, base_url=base, timeout=20)
        threads = [threading.Thread(target=asyncio.run, args=[many(of)]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [type(one).__name__ for one in ended] == ["Image"] * 12


def test_a_loop_that_has_ended_is_forgotten(fluxwerk_server):
    of = AsyncClient(KEY, base_url=fluxwerk_server)
    for _ in range(3):
        asyncio.run(of.credits())
    assert len(of._opened) == 1


def test_a_closed_client_opens_again(fluxwerk_server):
    async def run() -> None:
        async with AsyncClient(KEY, base_url=fluxwerk_server) as of:
            await of.close()
            assert await of.credits() > 0

    asyncio.run(run())


def test_connections_that_were_handed_in_are_left_open():
    http = httpx2.Client(transport=httpx2.MockTransport(conversation()))
    Client(KEY, http_client=http).close()
    assert not http.is_closed
    http.close()
    later = httpx2.AsyncClient(transport=httpx2.MockTransport(conversation()))

    async def run() -> None:
        await AsyncClient(KEY, http_client=later).close()
        assert not later.is_closed
        await later.aclose()

    asyncio.run(run())


def test_one_client_serves_many_at_once(fluxwerk_server):
    async def run() -> list[object]:
        async with AsyncClient(KEY, base_url=fluxwerk_server) as of:
            return await asyncio.gather(*(of.generate("x", width=64, height=64, seed=n) for n in range(30)))

    assert [image.seed for image in asyncio.run(run())] == list(range(30))


def test_a_task_is_waited_for_in_another_process(fluxwerk_server, asked):
    task = asked.do(asked.client(base_url=fluxwerk_server), "submit", "x", width=64, height=64)
    program = (
        "import pickle, sys, fluxwerk\n"
        "task = pickle.load(sys.stdin.buffer)\n"
        f"image = fluxwerk.Client('another-key', base_url={fluxwerk_server!r}).download(task)\n"
        "print(image.task == task, image.width)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(task), capture_output=True, check=True, timeout=30
    )
    assert done.stdout.decode().split() == ["True", "64"]


def needs(model: catalog.Model) -> dict[str, object]:
    """The least that this model takes, with the images it requires and a mask for one that is opaque."""
    side = max(64, model.smallest_input)
    wanted: dict[str, object] = {}
    for option in model.options.values():
        if (option.required or option.name == "mask") and option.type in rows.IMAGE_TYPES:
            wanted[option.name] = images.jpeg(side, side)
        elif option.required and option.type == "integer":
            wanted[option.name] = 128
    if "width" in model.options and model.output == "size":
        wanted |= {"width": 256, "height": 288}
    return wanted | ({"finetune_id": "mine"} if "finetune_id" in model.options else {})


@pytest.mark.parametrize("model", catalog.list_models().values(), ids=lambda model: model.name)
def test_every_model_gives_an_image_of_the_announced_size_and_format(asked, fluxwerk_server, model):
    wanted = needs(model)
    prompt = "x" if "prompt" in model.options else None
    image = asked.do(asked.client(base_url=fluxwerk_server), "generate", prompt, model=model.name, **wanted)
    given = {name: value for name, value in wanted.items() if isinstance(value, int)}
    side = max(64, model.smallest_input)
    inputs = [(side, side)] * any(isinstance(value, bytes) for value in wanted.values())
    assert (image.width, image.height) == sizes.output_size(model, given, inputs)
    default = model.options["output_format"].default if "output_format" in model.options else "png"
    assert image.suffix == default
    picture = image.to_pil()
    assert (picture.size, picture.format.lower()) == ((image.width, image.height), default)
    assert (image.model, image.engine) == (model.name, "offline")


def test_an_image_shows_itself_in_a_notebook(fluxwerk_server):
    with Client(KEY, base_url=fluxwerk_server) as of:
        image = of.generate("x", width=64, height=64, output_format="webp")
    shown = image._repr_mimebundle_(include=None, exclude=None)
    assert set(shown) == {"image/webp", "text/html", "text/plain"}
    assert shown["text/html"].startswith('<img src="data:image/webp;base64,')
    assert Image.open(io.BytesIO(image.data)).size == (64, 64)


def test_what_happens_on_the_way_is_told(asked, fluxwerk_server):
    events = []
    asked.do(asked.client(base_url=fluxwerk_server, on_event=events.append), "generate", "x", width=64, height=64)
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[-2:]) == ("submitted", ["ready", "downloaded"])
    assert [event.seconds for event in events] == sorted(event.seconds for event in events)


def test_a_request_that_was_built_before_is_sent_as_it_is(asked):
    seen: list[httpx2.Request] = []
    built = Client(KEY).request("x", model="flux-2-flex", steps=9)
    task = asked.do(asked.client(conversation(seen)), "submit", built)
    assert task.model == "flux-2-flex"
    assert json.loads(seen[0].content) == {"prompt": "x", "steps": 9}


def test_extra_goes_unchecked_to_a_model_given_by_hand(asked):
    seen: list[httpx2.Request] = []
    newer = catalog.Model("flux-9", "/v1/flux-9")
    image = asked.do(asked.client(conversation(seen)), "generate", "x", model=newer, extra={"dream": 1})
    assert image.model == "flux-9"
    assert seen[0].url.path == "/v1/flux-9"
    assert json.loads(seen[0].content) == {"prompt": "x", "dream": 1}


class Counter:
    """A relay in front of a server that counts the connections it is asked for."""

    def __init__(self, base):
        self._target = urlsplit(base).port
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            for one, other in ((caller, server), (server, caller)):
                threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    @staticmethod
    def _relay(one, other):
        with one, suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def test_submits_polls_and_downloads_go_by_the_same_warm_connection():
    events = []
    with (
        loopback(pace=lambda _: 0.3) as base,
        closing(Counter(base)) as counter,
        Client("a-key", base_url=counter.base, on_event=events.append) as client,
    ):
        for _ in range(4):
            client.generate("a fox", width=64, height=64)

    assert sum(event.kind == "polled" for event in events) >= 8
    assert counter.connections == 1


def test_many_at_once_open_no_more_connections_than_they_are():
    with loopback(pace=lambda _: 0.2) as base, closing(Counter(base)) as counter:

        async def run():
            async with AsyncClient("a-key", base_url=counter.base, slots=6) as client:
                return [made async for made in client.generate_many(["a fox"] * 40, width=64, height=64)]

        made = asyncio.run(run())

    assert sum(one.image is not None for one in made) == 40
    assert counter.connections <= 6 + 16


class Recorded:
    """A transport of one's own: a conversation without a network."""

    def __init__(self):
        self.sent, self.closed = [], False

    def answer(self, credentials, request, budget):
        self.sent.append((request.method, credentials.headers(request).get("x-key"), budget))
        if request.method == "POST":
            return Response(200, {}, json.dumps(TASK).encode())
        return Response(200, {}, json.dumps(READY).encode() if "get_result" in request.url else PICTURE)


class Wire(Recorded):
    def send(self, credentials, request, budget):
        return self.answer(credentials, request, budget)

    def close(self):
        self.closed = True


class AsyncWire(Recorded):
    async def send(self, credentials, request, budget):
        return self.answer(credentials, request, budget)

    async def close(self):
        self.closed = True


def test_a_transport_replaces_the_network_and_is_closed_with_its_client(asked):
    wire, clock = AsyncWire() if asked.is_async else Wire(), PretendClock(0.0)
    image = asked.do(asked.client(transport=wire, clock=clock, timeout=50), "generate", "a fox")
    assert image.data == PICTURE
    assert [(method, key) for method, key, _ in wire.sent] == [("POST", KEY), ("GET", KEY), ("GET", None)]
    assert wire.sent[0][2] == 50
    assert wire.sent[2][2] == 50 - clock.now() < 50
    assert wire.closed


def test_a_transport_and_an_http_client_are_one_too_many(asked):
    with pytest.raises(InvalidUsageError, match="http_client and transport"):
        asked.client(conversation(), transport=Wire())


def test_events_are_for_observers_and_change_no_slot(asked):
    heard = []

    def deaf(event):
        heard.append(event.kind)

    of = asked.client(
        transport=AsyncWire() if asked.is_async else Wire(), clock=PretendClock(0.0), on_event=deaf, slots=1
    )
    task = Task("1", TASK["polling_url"])
    session = of._session()
    session.claim = of.slots.ask(Pool("standard", 1))
    session.report(Event("submitted", task))
    assert of.slots.age(task) is None
    session.submitted(task)
    session.report(Event("polled", task, 1, Status(task, "Ready", Outcome.READY)))
    assert of.slots.age(task) == 0
    session.ended(task)
    assert of.slots.age(task) is None
    assert heard == ["submitted", "polled"]


def test_an_application_in_this_process_is_reached_without_a_socket():
    state = ServerState(Accounts(), time.time, engine="offline", pace=lambda _: 0.0)
    app = build(state, OfflineEngine(), Guard(()))

    async def run():
        async with (
            app.router.lifespan_context(app),
            AsyncClient(KEY, base_url="http://fluxwerk.test", transport=transport.ASGITransport(app)) as of,
        ):
            return await of.generate("a fox", width=64, height=64)

    assert asyncio.run(run()).width == 64
