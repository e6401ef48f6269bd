"""One line for each request, with what an operator asks about and nothing that opens anything."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.server import requestlog
from fluxwerk.server.requestlog import JsonLines, RequestLog, TextLines
from fluxwerk.server.state.keys import Keyring
from fluxwerk.testing import loopback
from support.asking import PRO
from support.process import process

KEY = {"x-key": "a-key-that-nobody-may-read"}
PROMPT = "a prompt that nobody may read"
SMALL = {"prompt": PROMPT, "width": 64, "height": 64}


@contextmanager
def written(formatter: logging.Formatter) -> Iterator[io.StringIO]:
    """Collect what the log of requests writes."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(formatter)
    requestlog.log.addHandler(handler)
    requestlog.log.setLevel(logging.INFO)
    try:
        yield text
    finally:
        requestlog.log.removeHandler(handler)
        requestlog.log.setLevel(logging.NOTSET)


def ask(path: str = "/", status: int | None = 200, *, prompts: bool = False, raw: bool = True, **headers: str) -> dict:
    """Ask an application that knows a prompt, and return the header of the answer and the line."""

    async def application(scope, receive, send):
        requestlog.note(task="one", prompt=PROMPT)
        requestlog.note(key="shop")
        if status is not None:
            await send({"type": "http.response.start", "status": status, "headers": []})

    async def answer() -> list:
        sent = []

        async def send(message):
            sent.append(message)

        pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "headers": pairs}
        scope |= {"raw_path": path.encode()} if raw else {}
        await RequestLog(application, prompts=prompts, clock=iter((1.0, 1.25)).__next__)(scope, None, send)
        return sent

    with written(JsonLines()) as text:
        sent = asyncio.run(answer())
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]} if sent else {}
    return json.loads(text.getvalue()) | {"answered": answered.get("x-request-id")}


def test_a_line_has_the_request_and_what_was_noted():
    line = ask("/v1/credits", 402)
    assert {name: line[name] for name in ("method", "path", "status", "ms", "task", "key", "model")} == {
        "method": "GET",
        "path": "/v1/credits",
        "status": 402,
        "ms": 250.0,
        "task": "one",
        "key": "shop",
        "model": None,
    }
    assert line["request"] == line["answered"]
    assert line["time"].endswith("Z")


@pytest.mark.parametrize("given_id", ["018f-c0de", "Root=1-67891233-abcdef012345678912345678", "a" * 128])
def test_a_well_formed_request_id_is_kept(given_id):
    assert ask(x_request_id=given_id)["request"] == given_id


@pytest.mark.parametrize("given_id", ["", "a b", "a" * 129, "-a", '"', "ü", "a\x00"])
def test_a_malformed_request_id_is_replaced(given_id):
    line = ask(x_request_id=given_id)
    assert line["request"] not in ("", given_id)
    assert line["answered"] == line["request"]


def test_a_prompt_is_logged_only_on_request():
    assert "prompt" not in ask()
    assert ask(prompts=True)["prompt"] == PROMPT


def test_a_request_without_an_answer_has_no_status():
    assert ask(status=None)["status"] is None


@given(st.text(min_size=1).map(lambda text: "/" + text), st.booleans())
def test_any_path_makes_one_line(path, raw):
    path = path.encode("utf-8", "ignore").decode()
    line = ask(path, raw=raw)
    assert len(line["path"]) <= requestlog.LONGEST_PATH


@given(st.text(), st.text())
def test_any_text_is_one_line_in_either_format(prompt, path):
    for form in (JsonLines(), TextLines()):
        record = logging.makeLogRecord({"levelname": "INFO", "line": {"path": path, "prompt": prompt, "task": None}})
        assert len(form.format(record).splitlines()) == 1


def test_what_opens_an_image_stays_out_of_the_log():
    with written(JsonLines()) as text, loopback() as base:
        task = httpx2.post(base + PRO, json=SMALL, headers=KEY).json()
        while (polled := httpx2.get(task["polling_url"], headers=KEY).json())["status"] == "Pending":
            pass
        link = polled["result"]["sample"]
        assert httpx2.get(link).status_code == 200
    lines = [json.loads(line) for line in text.getvalue().splitlines()]
    assert {line["task"] for line in lines} == {task["id"]}
    assert {line["model"] for line in lines} == {"flux-2-pro"}
    assert lines[-1]["path"] == "/results/…"
    for secret in (KEY["x-key"], PROMPT, link.partition("?")[2], link.split("/")[-2]):
        assert secret not in text.getvalue()


def test_a_server_writes_a_line_of_json_for_each_request():
    with process("--log-format", "json", "--log-prompts") as (base, running):
        answer = httpx2.post(base + PRO, json=SMALL, headers={**KEY, "x-request-id": "one"})
        line = json.loads(running.stderr.readline())
    assert answer.headers["x-request-id"] == "one"
    assert line["key"].startswith("sha256:")
    shown = {name: line[name] for name in ("request", "path", "status", "task", "model", "prompt")}
    task = answer.json()["id"]
    assert shown == {
        "request": "one",
        "path": PRO,
        "status": 200,
        "task": task,
        "model": "flux-2-pro",
        "prompt": PROMPT,
    }


def test_a_key_is_logged_by_its_name(tmp_path):
    ring = tmp_path / "keys.json"
    key = Keyring(ring).add("shop")
    with process("--log-format", "json", "--keys", ring) as (base, running):
        httpx2.post(base + PRO, json=SMALL, headers={"x-key": key})
        assert json.loads(running.stderr.readline())["key"] == "shop"


def test_a_warning_is_a_line_of_json_too():
    with process("--log-format", "json") as (base, running):
        httpx2.post(base + PRO, json={**SMALL, "sed": 1}, headers=KEY)
        line = json.loads(running.stderr.readline())
    assert (line["level"], line["logger"]) == ("warning", "fluxwerk.server")
    assert "sed" in line["message"]


def test_a_foreign_host_is_logged_with_its_refusal():
    with process("--log-format", "text") as (base, running):
        httpx2.get(base + "/v1/credits", headers={"host": "elsewhere.example"})
        assert "method=GET path=/v1/credits status=421" in running.stderr.readline()
