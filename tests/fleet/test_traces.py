"""One trace over all processes of a fleet: from the submit at a server to the worker, the webhook and the download."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from support.asking import PRO
from support.receiver import receiving

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
NETWORK = ("--allow-network", "127.0.0.0/8")


@contextmanager
def traced(spans: Path, *words: object) -> Iterator[str]:
    """Run fluxwerk with its spans in a file; yields its first line."""
    command = [sys.executable, "-m", "support.traced", spans, *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment) as running:
        try:
            yield running.stderr.readline()
        finally:
            running.terminate()
            running.wait(timeout=20)


def test_a_trace_goes_on_in_every_process(database, tmp_path):
    at_server, at_worker = tmp_path / "server.jsonl", tmp_path / "worker.jsonl"
    place = ("--database", database, "--storage", tmp_path / "images", *NETWORK)
    with (
        receiving() as (hook, got),
        traced(at_server, "serve", "--port", 0, "--workers", 0, *place) as line,
        traced(at_worker, "worker", "--engine", "offline", *place),
        httpx2.Client(base_url=re.search(r"http://\S+:\d+", line)[0], headers={"x-key": "key"}) as http,
    ):
        body = {"prompt": "CANARY", "width": 64, "height": 64, "webhook_url": hook, "webhook_secret": "CANARY"}
        task = http.post(PRO, json=body, headers=PARENT).json()
        notice, _, _ = got.get(timeout=20)
        ready = http.get(task["polling_url"]).json()
        assert http.get(ready["result"]["sample"]).status_code == 200
    assert notice["traceparent"].split("-")[1] == TRACE
    written = [
        {**json.loads(line), "at": file.stem}
        for file in (at_server, at_worker)
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    ours = {
        (span["name"], span["at"])
        for span in written
        if span["context"]["trace_id"] == f"0x{TRACE}" and span["attributes"].get("gen_ai.response.id") == task["id"]
    }
    # Whichever process is the first to see that it is due delivers the webhook.
    (delivered,) = {place for name, place in ours if name == "deliver webhook"}
    assert ours == {
        ("submit flux-2-pro", "server"),
        ("render flux-2-pro", "worker"),
        ("deliver webhook", delivered),
        ("deliver image", "server"),
    }
    assert "CANARY" not in at_server.read_text(encoding="utf-8") + at_worker.read_text(encoding="utf-8")
