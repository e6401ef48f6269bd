"""The guide's cURL examples, letter by letter, against the local server; only addresses are replaced."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from support.images import hosting, jpeg

EXAMPLES = (Path(__file__).parents[1] / "data" / "guide-examples.sh").read_text(encoding="utf-8").split("\n\n")
SUBMITS = [example.strip() for example in EXAMPLES if "-X POST" in example]
POLL = next(example.strip() for example in EXAMPLES if "POLLING_URL" in example)
DOWNLOAD = next(example.strip() for example in EXAMPLES if "IMAGE_URL" in example)
NAMES = ("photo", "person", "background", "cat", "room")
PROMPT = re.compile(r'"prompt": "([^"]*)"')

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with hosting({f"/{name}.jpg": jpeg(160 + 16 * n, 128) for n, name in enumerate(NAMES)}) as base:
        yield base


def run(command: str, folder: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "BFL_API_KEY": "bfl_your_key_here", "LC_ALL": "C.UTF-8", "no_proxy": "*"}
    done = subprocess.run(
        ["sh", "-c", command], check=True, capture_output=True, cwd=folder, env=environment, timeout=30
    )
    return done.stdout.decode()


def test_the_guide_has_eight_submits_and_they_are_the_ones_tried_here():
    assert len(SUBMITS) == 8
    assert len({PROMPT.search(submit)[1] for submit in SUBMITS}) == 8


@pytest.mark.parametrize("submit", SUBMITS, ids=lambda submit: PROMPT.search(submit)[1])
def test_an_example_of_the_guide_runs_to_its_image(submit, fluxwerk_server, host, tmp_path):
    here = submit.replace("https://api.bfl.ai", fluxwerk_server).replace("https://example.com", host)
    task = json.loads(run(here, tmp_path))
    assert task["polling_url"].startswith(fluxwerk_server)
    poll = POLL.replace("POLLING_URL", task["polling_url"])
    while (status := json.loads(run(poll, tmp_path)))["status"] == "Pending":
        pass
    assert status["status"] == "Ready"
    assert status["result"]["prompt"] == PROMPT.search(submit)[1]
    run(DOWNLOAD.replace("IMAGE_URL", status["result"]["sample"]), tmp_path)
    image = Image.open(io.BytesIO((tmp_path / "output.png").read_bytes()))
    image.load()
    sizes = {"photo.jpg": (160, 128), "person.jpg": (176, 128)}
    assert image.size == next((size for name, size in sizes.items() if name in submit), (1024, 1024))
