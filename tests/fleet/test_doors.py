"""A door of a fleet: the server that answers waits for an image that a worker in another process makes."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import httpx2
from PIL import Image

from support.process import process

KEY = {"authorization": "Bearer a-key"}


def test_a_door_waits_for_a_worker_of_another_process(database, tmp_path):
    fleet = ("--database", database, "--storage", str(tmp_path))
    command = [sys.executable, "-m", "fluxwerk", "worker", *fleet]

    def ask(base: str) -> httpx2.Response:
        body = {"prompt": "a red fox", "n": 3, "size": "256x128"}
        return httpx2.post(f"{base}/v1/images/generations", json=body, headers=KEY, timeout=60)

    with process(*fleet, "--workers", "0") as (base, _):
        alone = ask(base)
        assert (alone.status_code, alone.json()["error"]["code"]) == (503, "no_worker")
        assert alone.headers["retry-after"].isdigit()
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
            try:
                while (answer := ask(base)).status_code == 503:
                    assert worker.poll() is None
            finally:
                worker.kill()
        assert answer.status_code == 200, answer.text
        sizes = [Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))).size for one in answer.json()["data"]]
    assert sizes == [(256, 128)] * 3
