"""`fluxwerk webhook`: what comes in is shown, what goes out is signed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import httpx2
import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group
from fluxwerk.webhook import SIGNATURE, sign

KEY = "CANARY-webhook-secret"
BODY = b'{"id":"t1","status":"Ready","result":{"sample":"https://delivery-eu1.bfl.ai/x?sig=CANARYsig"}}'
ENVIRONMENT = {**os.environ, "BFL_WEBHOOK_SECRET": KEY, "no_proxy": "*"}


@contextmanager
def listening(*words: str, count: int = 1) -> Iterator[tuple[str, subprocess.Popen]]:
    command = [sys.executable, "-m", "fluxwerk", "webhook", "listen", "--port", "0", "--count", str(count), *words]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield re.search(r"http://\S+?(?=;)", process.stderr.readline())[0], process
        finally:
            process.kill()


def post(url: str, body: bytes = BODY, headers: dict[str, str] | None = None) -> httpx2.Response:
    return httpx2.post(url, content=body, headers={SIGNATURE: sign(body, KEY)} if headers is None else headers)


def test_sign_prints_the_header_that_curl_can_send(tmp_path):
    (tmp_path / "hook.json").write_bytes(BODY)
    for file, given in ((str(tmp_path / "hook.json"), None), ("-", BODY)):
        done = CliRunner().invoke(group, ["webhook", "sign", file], env={"BFL_WEBHOOK_SECRET": KEY}, input=given)
        assert (done.exit_code, done.stdout) == (0, f"{SIGNATURE}: {sign(BODY, KEY)}\n")


def test_without_a_secret_nothing_is_signed_and_the_variable_is_named():
    done = CliRunner().invoke(group, ["webhook", "sign", "-"], env={"BFL_WEBHOOK_SECRET": None}, input=b"")
    assert done.exit_code == 2
    assert "--secret" in done.stderr


def test_listen_shows_what_is_verified_and_shows_no_secret():
    with listening(count=4) as (url, process):
        answers = [post(url), post(url, headers={}), post(url, headers={SIGNATURE: sign(b"x", KEY)}), post(url, b"[]")]
        shown = process.stdout.read()
        assert process.wait() == 0
    assert [answer.status_code for answer in answers] == [200, 401, 401, 400]
    verified, missing, wrong, garbled = shown.splitlines()
    assert "verdict: verified  task: t1  status: Ready  image: https://delivery-eu1.bfl.ai/x?…" in verified
    assert "not verified" in missing
    assert "no X-BFL-Signature" in missing
    assert "does not match its body" in wrong
    assert "verified, but unreadable" in garbled
    assert "CANARY" not in shown + "".join(answer.text for answer in answers)


def test_listen_speaks_json_and_keeps_the_bodies(tmp_path):
    with listening("--json", "--save", str(tmp_path / "hooks"), "--accept-secret-header") as (url, process):
        assert post(url, headers={"x-webhook-secret": KEY}).status_code == 200
        facts = json.loads(process.stdout.read())
    assert (facts["verdict"], facts["task"], facts["status"]) == ("verified", "t1", "Ready")
    assert (tmp_path / "hooks" / "webhook-1.json").read_bytes() == BODY


def test_listen_forwards_what_is_verified_byte_for_byte_and_nothing_else():
    with listening(count=2) as (behind, receiver):
        with listening("--forward", behind, count=4) as (url, front):
            answers = [post(url), post(url, headers={}), post(url)]
            receiver.wait()
            answers.append(post(url))
            shown = front.stdout.read().splitlines()
        assert receiver.stdout.read().count("verdict: verified") == 2
    assert [answer.status_code for answer in answers] == [200, 401, 200, 502]
    assert "forwarded: answered 200 after" in shown[0]
    assert "forwarded" not in shown[1]
    assert "forwarded: failed (" in shown[3]


@pytest.mark.parametrize(("length", "status"), [("262145", 413), ("9" * 30, 413), ("-1", 413), (None, 411)])
def test_listen_reads_no_body_of_unknown_or_of_too_great_a_length(length, status):
    with listening() as (url, _):
        connection = HTTPConnection(httpx2.URL(url).netloc.decode(), timeout=10)
        connection.putrequest("POST", "/")
        if length:
            connection.putheader("content-length", length)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()


def test_ctrl_c_ends_listening_with_a_count():
    with listening(count=9) as (url, process):
        post(url)
        process.send_signal(signal.SIGINT)
        assert "1 webhook received." in process.stderr.read()
        assert process.wait() == 0


def test_an_address_that_is_taken_is_named():
    with listening() as (url, _):
        done = CliRunner().invoke(
            group, ["webhook", "listen", "--port", url.rpartition(":")[2]], env={"BFL_WEBHOOK_SECRET": KEY}
        )
    assert done.exit_code == 2
    assert "cannot listen on" in done.stderr
