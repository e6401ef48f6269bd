"""Requests of chat applications, in the shapes that their source code writes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from fluxwerk.server.doors.doorway import DOORS
from fluxwerk.testing import loopback
from support.images import png, text

ROOT = Path(__file__).parents[3]
SHAPES = json.loads((ROOT / "tests" / "data" / "door-requests.json").read_text(encoding="utf-8"))
ALIASES = {"dall-e-3": "flux-2-pro", "gpt-image-1": "flux-2-klein-9b"}
PICTURE = png(256, 256)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with loopback(aliases=ALIASES) as base:
        yield base


def mask() -> bytes:
    file = io.BytesIO()
    image = Image.new("RGBA", (256, 256), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (64, 64, 192, 192))
    image.save(file, "PNG")
    return file.getvalue()


def found(body: object, path: str) -> object:
    for step in path.split("."):
        body = body[int(step)] if isinstance(body, list) else body[step]
    return body


@pytest.mark.parametrize("shape", SHAPES, ids=[shape["application"] for shape in SHAPES])
def test_an_application_finds_what_it_reads(server, shape):
    given = shape.get("json")
    if given and given.get("input_image") == "PICTURE":
        given = {**given, "input_image": text(PICTURE)}
    files = [
        (name, (f"{number}.png", mask() if name == "mask" else PICTURE, "image/png"))
        for name, count in shape.get("files", {}).items()
        for number in range(count)
    ]
    key = {"authorization": "Bearer k"} if "/images/" in shape["path"] else {"x-key": "k"}
    answer = httpx2.post(
        server + shape["path"], json=given, data=shape.get("form"), files=files or None, headers=key, timeout=30
    )
    assert answer.status_code == 200, answer.text
    for path in shape["reads"]:
        assert found(answer.json(), path)


def test_librechat_polls_by_the_id_alone(server):
    body = next(shape["json"] for shape in SHAPES if shape["application"] == "LibreChat, Flux tool")
    task = httpx2.post(f"{server}/v1/flux-pro-1.1", json=body, headers={"x-key": "k"}).json()
    ask = {"params": {"id": task["id"]}, "headers": {"x-key": "k"}}
    while (status := httpx2.get(f"{server}/v1/get_result", **ask).json())["status"] != "Ready":
        assert status["status"] == "Pending"
    assert httpx2.get(status["result"]["sample"]).headers["content-type"] == "image/png"


def test_lobehub_reads_the_first_sentence_of_a_refusal(server):
    """It always sends a safety tolerance of 6, which FLUX.2 refuses, here as there."""
    body = {"prompt": "x", "safety_tolerance": 6, "output_format": "png"}
    refused = httpx2.post(f"{server}/v1/flux-2-pro", json=body, headers={"x-key": "k"})
    assert refused.status_code == 422
    assert "less than or equal to 5" in refused.json()["detail"][0]["msg"]


def test_the_page_names_every_application():
    page = (ROOT / "docs" / "how-to" / "chat-applications.md").read_text(encoding="utf-8")
    assert {name for shape in SHAPES if (name := shape["application"].partition(",")[0]) not in page} == set()


@pytest.mark.parametrize("path", sorted({path for path, method in DOORS if method == "POST"}))
def test_a_door_answers_what_is_asked_before_a_post(server, path):
    assert httpx2.options(server + path.replace("{name:path}", "x")).status_code == 204
