"""Other people's clients at our doors, unchanged: OpenAI's package for node, a client of A1111, and MCP's for node."""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from fluxwerk.testing import loopback
from interop import peer
from support.images import png

ROOT = Path(__file__).parent.parent.parent
OPENAI = "openai@7.57.0"
WEBUIAPI = "webuiapi==0.9.17"
MCP = "@modelcontextprotocol/sdk@1.32.2"

pytestmark = peer.group


@pytest.fixture(scope="module")
def server():
    with loopback(aliases={"dall-e-3": "flux-2-pro"}) as base:
        yield base


@pytest.fixture
def desk(tmp_path):
    (tmp_path / "photo.png").write_bytes(png(256, 256))
    mask, file = Image.new("RGBA", (256, 256), (0, 0, 0, 255)), io.BytesIO()
    mask.paste((0, 0, 0, 0), (64, 64, 192, 192))
    mask.save(file, "PNG")
    (tmp_path / "mask.png").write_bytes(file.getvalue())
    return tmp_path


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        opened.load()
        return opened.size


def test_the_package_of_openai_for_node(server, desk):
    program = peer.node(desk, OPENAI)
    shutil.copy(peer.CLIENTS / "openai_client.mjs", desk)
    said = peer.run([program, "openai_client.mjs", desk], {"BFL_BASE_URL": server}, desk)

    assert said["models"][0] == "dall-e-3"
    assert size(desk / "made-0.png") == size(desk / "made-1.png") == (512, 256)
    assert size(desk / "edited.png") == size(desk / "filled.png") == (256, 256)
    assert said["events"] == ["image_generation.completed"]
    assert said["refusal"] == "NotFoundError: 404 model_not_found"


def test_a_client_of_the_web_ui(server, desk):
    own = peer.python(desk / "venv", WEBUIAPI)
    said = peer.run([own, peer.CLIENTS / "webuiapi_client.py", desk], {"BFL_BASE_URL": server}, desk)

    assert said["models"][0] == "dall-e-3"
    assert said["current"] == "flux-2-klein-4b"
    assert (said["samplers"], said["progress"], said["seeds"]) == (["Euler"], 0, [7, 8])
    assert size(desk / "made-0.png") == size(desk / "made-1.png") == (512, 256)
    assert size(desk / "changed.png") == (256, 128)
    assert size(desk / "filled.png") == (256, 256)


def test_the_mcp_sdk_for_node(desk):
    program = peer.node(desk, MCP)
    shutil.copy(peer.CLIENTS / "mcp_client.mjs", desk)
    said = peer.run([program, "mcp_client.mjs", desk / "images", sys.executable, ROOT / "src"], {}, desk)

    assert "generate" in said["tools"]
    assert said["blocks"] == ["text", "image", "resource_link", "text"]
    assert said["steps"][0] == "1 × flux-2-pro, about 3 credits"
    assert size(Path(said["images"][0]["path"])) == (512, 256)


def test_the_interop_page_names_the_versions_at_the_doors():
    page = (ROOT / "docs" / "how-to" / "interop.md").read_text(encoding="utf-8")
    for name in (OPENAI, WEBUIAPI, MCP):
        package, version = re.fullmatch(r"(.+?)(?:==|@)([\d.]+)", name).groups()
        assert f"`{package}` {version}" in page
