"""The server over real HTTP: FastAPI, uvicorn, the engine at work, and the OpenAPI it publishes."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi.openapi.models import OpenAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fluxwerk import Client, TaskFailedError, catalog
from fluxwerk.client.transport import LONGEST_SUBMIT
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server import app as application
from fluxwerk.server.fetch import Guard
from fluxwerk.server.loopback import listen
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from fluxwerk.testing import LocalServer, loopback
from fluxwerk.testing.face_to_face import Blank
from support import images
from support.live import LIVE

KEY = {"x-key": "a-key"}


@pytest.fixture(scope="module")
def http(fluxwerk_shared_server: LocalServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=fluxwerk_shared_server.base_url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def spec(http: httpx2.Client) -> dict:
    return http.get("/openapi.json").json()


def finished(http: httpx2.Client, submitted: httpx2.Response) -> dict:
    while True:
        body = http.get(submitted.json()["polling_url"]).json()
        if body["status"] != "Pending":
            return body


def test_a_prompt_becomes_an_image_over_http(http):
    submitted = http.post("/v1/flux-2-pro", json={"prompt": "x", "width": 64, "height": 64}, headers=KEY)
    assert submitted.status_code == 200
    assert set(submitted.json()) == {"id", "polling_url", "cost", "input_mp", "output_mp"}
    body = finished(http, submitted)
    assert body["status"] == "Ready"
    image = http.get(body["result"]["sample"])
    assert image.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(image.content)).size == (64, 64)


def test_a_head_of_an_image_has_its_length_and_no_body(http):
    body = finished(http, http.post("/v1/flux-2-pro", json={"prompt": "x", "width": 64, "height": 64}, headers=KEY))
    head, image = http.head(body["result"]["sample"]), http.get(body["result"]["sample"])
    assert head.content == b""
    assert head.headers["content-length"] == str(len(image.content))


def test_refusals_arrive_as_the_live_service_words_them(http):
    unauthenticated = http.post("/v1/flux-2-pro", content=b"{")
    assert (unauthenticated.status_code, unauthenticated.json()["detail"]) == (403, "Not authenticated")
    malformed = http.post("/v1/flux-2-pro", content=b"{", headers={"x-key": "two words"})
    assert (malformed.status_code, malformed.json()["detail"]) == (422, "Invalid API key format")
    invalid = http.post("/v1/flux-2-pro", json={}, headers=KEY).json()["detail"]
    assert invalid == [{"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"}]
    unknown = http.post("/v1/flux-9", json={})
    told = {"detail": "Not Found", "error": "not_found", "message": "Not Found"}
    assert (unknown.status_code, unknown.json()) == (404, told)
    wrong = http.get("/v1/flux-2-pro")
    assert (wrong.status_code, wrong.headers["allow"], wrong.json()["detail"]) == (405, "POST", "Method Not Allowed")


def test_an_unknown_route_answers_in_the_chosen_dialect():
    """What no route takes is told with the slots too and in the dialect that was chosen."""
    with loopback(dialect="guide") as base, httpx2.Client(base_url=base, headers=KEY) as http:
        assert http.get("/v1/credits").status_code == 200
        for method, path, status in (
            ("POST", "/v1/flux-9", 404),
            ("PUT", "/v1/flux-2-pro", 405),
            ("GET", "/none", 404),
        ):
            answer = http.request(method, path, json={})
            assert (answer.status_code, set(answer.json())) == (status, {"error", "message"})
            assert answer.headers["x-ratelimit-remaining"] == "24"


def test_too_many_tasks_are_told_when_to_come_back():
    with loopback(pace=lambda _: 60.0) as base, httpx2.Client(base_url=base, headers=KEY) as http:
        wanted = {"prompt": "x", "width": 64, "height": 64}
        answers = [http.post("/v1/flux-kontext-max", json=wanted) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 6 + [429]
        assert answers[-1].headers["retry-after"] == str(answers[-1].json()["retry_after"])


def test_an_engine_that_fails_ends_the_task_and_the_next_one_is_served(caplog):
    class Moody(OfflineEngine):
        def render(self, order):
            if order.prompt == "bad":
                raise RuntimeError("no paint left")
            return super().render(order)

    with loopback(Moody()) as base, Client("key", base_url=base) as client:
        before = client.credits()
        with pytest.raises(TaskFailedError, match="no paint left"):
            client.generate("bad", width=64, height=64, timeout=10)
        assert client.credits() == before
        assert client.generate("good", width=64, height=64).width == 64
    assert "failed in the engine offline" in caplog.text


def test_the_picture_with_a_bomb_in_its_text_fails_alone():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    plain = images.png(64, 64)
    bomb = plain[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"0" * 50_000_000, 9)) + plain[33:]
    with loopback() as base, Client("key", base_url=base) as client, pytest.raises(TaskFailedError):
        client.generate("x", images=[bomb])


def test_all_images_of_a_submit_are_fetched_within_one_bound():
    """All images of a submit are fetched within one bound so that no client fears that it has paid."""
    app = application.build(
        ServerState(Accounts(), lambda: 0.0, engine="blank"), Blank(), Guard(["127.0.0.0/8"]), fetching=0
    )

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test") as client:
            body = {"prompt": "x", "input_image": "http://127.0.0.1:9/a.png"}
            return await client.post("/v1/flux-2-pro", json=body, headers=KEY)

    answer = asyncio.run(send())
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "input_image"])
    assert "took all the time" in answer.json()["message"]
    assert application.FETCHING * 2 <= LONGEST_SUBMIT


def test_a_body_without_end_is_refused():
    part = b" " * (64 * 2**20)

    async def endless():
        while True:
            yield part

    async def send() -> tuple[httpx2.Response, str]:
        app = application.build(ServerState(Accounts(), lambda: 0.0), OfflineEngine())
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test", headers=KEY) as http:
            await http.get("/v1/credits")
            answer = await http.post("/v1/flux-2-pro", content=endless())
            return answer, (await http.get("/metrics")).text

    answer, counts = asyncio.run(send())
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert answer.headers["x-ratelimit-remaining"] == "24"
    assert 'fluxwerk_refused_total{status="413"} 1' in counts


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://localhost:1/",
        "http://a..b/",
        "http://user@127.0.0.1/",
        "https://127.0.0.1:99999/",
    ],
)
def test_a_url_that_leads_inside_is_refused_as_a_bad_image(http, url):
    answer = http.post("/v1/flux-2-pro", json={"prompt": "x", "input_image": url}, headers=KEY)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "input_image"]


def test_without_leave_not_even_this_machine_is_asked():
    with images.hosting({"/x": images.png(64, 64)}) as host, loopback(allow=()) as base:
        answer = httpx2.post(base + "/v1/flux-2-pro", json={"prompt": "x", "input_image": host + "/x"}, headers=KEY)
    assert answer.status_code == 422
    assert "not a public one" in answer.text


def test_an_image_is_fetched_by_its_url(http):
    with images.hosting({"/x.jpg": images.jpeg(100, 80)}) as host:
        submitted = http.post("/v1/flux-2-pro", json={"prompt": "x", "input_image": host + "/x.jpg"}, headers=KEY)
    assert submitted.status_code == 200
    assert finished(http, submitted)["status"] == "Ready"


def test_a_url_names_this_server_as_the_client_does(http, fluxwerk_server):
    port = urlsplit(fluxwerk_server).port
    answer = httpx2.get(f"http://localhost:{port}/v1/credits", headers=KEY)
    assert answer.status_code == 200
    submitted = httpx2.post(
        f"http://localhost:{port}/v1/flux-2-pro", json={"prompt": "x", "width": 64, "height": 64}, headers=KEY
    )
    assert submitted.json()["polling_url"].startswith(f"http://localhost:{port}/v1/get_result?id=")


@pytest.mark.parametrize("host", ["[half", "a b", "a/b?c", "ä".encode().decode("latin-1"), ""])
def test_a_strange_host_header_is_no_accident(fluxwerk_server, host):
    where = urlsplit(fluxwerk_server)
    with socket.create_connection((where.hostname, where.port), timeout=5) as line:
        head = f"GET /v1/credits HTTP/1.1\r\nHost: {host}\r\nx-key: key\r\nConnection: close\r\n\r\n"
        line.sendall(head.encode("latin-1"))
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert 200 <= int(answer.split()[1]) < 500


@pytest.mark.parametrize(
    "path", ["/v1/get_result?id=%ff", "/v1/get_result?id=%00", "/results/%5b", "/results/%0d%0a", "/%"]
)
def test_a_strange_path_is_no_accident(http, path):
    assert http.get(path).status_code < 500


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(path for model in catalog.list_models().values() for path in model.paths())),
    st.binary(max_size=200)
    | st.sampled_from(
        [
            b"[" * 50_000,
            b'{"prompt":' * 20_000,
            b'{"prompt":"\\ud800"}',
            b'{"prompt":"\x00"}',
            b'{"prompt":NaN}',
            b'{"prompt":"x","seed":' + b"9" * 5000 + b"}",
            b'{"prompt":"x","width":1e999}',
            b'{"prompt":"x","width":-1}',
            b"\xef\xbb\xbf{}",
            b'{"prompt":{"prompt":[]}}',
        ]
    ),
)
def test_no_body_makes_the_server_stumble(http, path, body):
    answer = http.post(path, content=body, headers=KEY)
    assert 400 <= answer.status_code < 500 or answer.status_code == 200
    assert answer.json()


def test_a_nul_in_a_prompt_is_refused_by_its_field(http):
    answer = http.post("/v1/flux-2-pro", json={"prompt": "a\0b", "width": 64, "height": 64}, headers=KEY)
    (entry,) = answer.json()["detail"]
    assert (answer.status_code, entry["loc"]) == (422, ["body", "prompt"])
    assert "NUL" in entry["msg"]


def test_the_openapi_is_valid(spec):
    assert OpenAPI.model_validate(spec).paths
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis, which validates OpenAPI, is not installed")
    schemathesis.openapi.from_dict(spec).validate()


def test_every_path_of_the_catalogue_is_published_with_its_fields(spec):
    for model in catalog.list_models().values():
        for path in model.paths():
            operation = spec["paths"][path]["post"]
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            assert set(body["properties"]) == set(model.options)
            assert body.get("additionalProperties") is (False if model.strict else None)
            assert {parameter["name"] for parameter in operation["parameters"]} == {"x-key", "Idempotency-Key"}
            assert {"200", "402", "403", "422", "429"} <= set(operation["responses"])


def test_every_published_operation_has_a_name_of_its_own(spec):
    names = [operation["operationId"] for path in spec["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_the_utilities_are_published_and_the_images_are_not(spec):
    assert {"/v1/get_result", "/v1/credits"} <= set(spec["paths"])
    assert not any(path.startswith("/results") for path in spec["paths"])


def test_the_live_services_paths_are_all_served(spec):
    assert set(LIVE["paths"]) <= set(spec["paths"])


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_pages_need_no_internet(http, page):
    text = http.get(page).text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", text)
    assert loaded
    assert not [url for url in loaded if not url.startswith("/")]
    answers = {url: http.get(url) for url in loaded}
    assert {answer.status_code for answer in answers.values()} == {200}
    scripts = [answer for url, answer in answers.items() if url.endswith(".js")]
    assert [len(script.content) > 500_000 for script in scripts] == [True]
    assert "https://" not in text.replace("https://www.w3.org", "")


def test_an_answer_fits_its_published_schema(http, spec):
    submitted = http.post("/v1/flux-2-pro", json={"prompt": "x", "width": 64, "height": 64}, headers=KEY)
    published = spec["paths"]["/v1/flux-2-pro"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    plain, hooked = (set(one["properties"]) for one in published["anyOf"])
    assert set(submitted.json()) == plain
    hook = {"prompt": "x", "width": 64, "height": 64, "webhook_url": "https://localhost/"}
    assert set(http.post("/v1/flux-2-pro", json=hook, headers=KEY).json()) == hooked
    result = spec["paths"]["/v1/get_result"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    body = finished(http, submitted)
    assert set(body) == set(result["properties"])
    assert body["status"] in result["properties"]["status"]["enum"]


def test_the_application_can_be_built_without_a_guard_or_threads():
    service = ServerState(Accounts(), lambda: 0.0)
    assert application.build(service, OfflineEngine()).title == "fluxwerk"


def test_the_server_is_gone_when_its_block_ends():
    with loopback() as base:
        assert httpx2.get(base + "/openapi.json").status_code == 200
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(base + "/openapi.json")
    assert not any(thread.name == "fluxwerk-server" and not thread.daemon for thread in threading.enumerate())


def test_a_taken_port_is_refused_and_another_is_found():
    with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_the_openapi_is_plain_json(spec):
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec
