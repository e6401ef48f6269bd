"""Other people's clients, unchanged, against our server: what they get is an image, and what they are refused they see.

Versions are named here and nowhere else; docs/how-to/interop.md is checked against them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fluxwerk.webhook import sign
from interop import peer
from interop.front import front
from support.images import hosting, png

ROOT = Path(__file__).parent.parent.parent
BLACKFOREST = "blackforest==0.1.3"
LITELLM = "litellm==1.109.1"
HUGGINGFACE = "huggingface_hub[inference]==0.36.0"
RUNNERS = ("vitest@4.1.12", "jest@30.5.2")
AI_SDK = ("@ai-sdk/black-forest-labs@2.0.41", "ai@7.0.173")
# What the Hub answers about the one model that this is tried with.
ON_THE_HUB = {
    "id": "black-forest-labs/FLUX.1-dev",
    "inferenceProviderMapping": {
        "black-forest-labs": {"status": "live", "providerId": "flux-dev", "task": "text-to-image"}
    },
}
ASKED_OF_THE_HUB = "/api/models/black-forest-labs/FLUX.1-dev?expand=inferenceProviderMapping"

pytestmark = peer.group


@pytest.fixture
def desk(tmp_path):
    (tmp_path / "photo.png").write_bytes(png(256, 256))
    return tmp_path


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        opened.load()
        return opened.size


def test_the_official_client(fluxwerk_server, desk):
    own = peer.python(desk / "venv", BLACKFOREST)
    said = peer.run([own, peer.CLIENTS / "blackforest_client.py", desk], {"BFL_BASE_URL": fluxwerk_server}, desk)

    assert size(desk / "task.png") == (512, 256)
    assert size(desk / "flux-dev.png") == (256, 256)
    assert size(desk / "flux-pro-1.1-ultra.png") == (2048, 2048)
    assert size(desk / "flux-kontext-pro.png") == (1024, 1024)
    # It reads `message`, which the live service's own errors do not have.
    assert said["refusal"] == "API request failed: Invalid API key format"


def test_litellm(fluxwerk_server, desk):
    own = peer.python(desk / "venv", LITELLM, loosened=("certifi",))
    with front(fluxwerk_server, desk) as (environment, seen):
        # Otherwise it asks GitHub for its table of prices.
        local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        said = peer.run([own, peer.CLIENTS / "litellm_client.py", desk], {**environment, **local}, desk)

    assert size(desk / "sync.png") == size(desk / "async.png") == (512, 256)
    assert size(desk / "edited.png") == (1024, 1024)
    assert "422" in said["refusal"]
    assert {host for host, *_ in seen} == {"api.bfl.ai"}
    assert [status for *_, status in seen if status != 200] == [422]


def test_huggingface_hub(fluxwerk_server, desk):
    own = peer.python(desk / "venv", HUGGINGFACE, "pillow")
    hub_answers = {ASKED_OF_THE_HUB: json.dumps(ON_THE_HUB).encode()}
    with front(fluxwerk_server, desk) as (environment, seen), hosting(hub_answers) as hub:
        told = {**environment, "HF_ENDPOINT": hub}
        said = peer.run([own, peer.CLIENTS / "huggingface_client.py", desk], told, desk)

    assert size(desk / "image.png") == (512, 256)
    assert size(desk / "again.png") == (1024, 768)
    assert "Invalid API key format" in said["refusal"]
    assert {host for host, *_ in seen} == {"api.us1.bfl.ai"}


def test_the_ai_sdk(fluxwerk_server, desk):
    program = peer.node(desk, *AI_SDK)
    shutil.copy(peer.CLIENTS / "ai_sdk.mjs", desk)
    said = peer.run([program, "ai_sdk.mjs", desk], {"BFL_BASE_URL": fluxwerk_server}, desk)

    assert size(desk / "sized.png") == (512, 256)
    assert size(desk / "shaped.png") == (1024, 1024)
    assert size(desk / "edited.png") == size(desk / "hooked.png") == (256, 256)
    assert [said[name]["type"] for name in ("sized.png", "shaped.png", "edited.png")] == ["image/png"] * 3
    assert [said[name]["cost"] for name in ("sized.png", "shaped.png", "edited.png")] == [3, 4, 4.5]
    assert "Invalid API key format" in said["refusal"]


def test_curl_over_https_at_the_address_of_the_service(fluxwerk_server, desk):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    script = f"curl -V >/dev/null && sh {ROOT / 'examples' / 'curl.sh'} 'a red fox' fox.jpeg && echo '{{}}'"
    with front(fluxwerk_server, desk) as (environment, seen):
        peer.run(["sh", "-c", script], environment, desk)

    assert size(desk / "fox.jpeg") == (1024, 1024)
    assert {host for host, *_ in seen} == {"api.bfl.ai"}


def test_our_own_client_at_the_address_of_the_service(fluxwerk_server, desk):
    program = (
        "import json, sys; from fluxwerk import Client; "
        "print(json.dumps({'seed': Client().generate('a fox', seed=7, width=64, height=64).seed}))"
    )
    with front(fluxwerk_server, desk) as (environment, seen):
        said = peer.run([sys.executable, "-c", program], environment, desk)

    assert said == {"seed": 7}
    assert {host for host, *_ in seen} == {"api.bfl.ai"}


@pytest.mark.parametrize("package", RUNNERS)
def test_the_example_of_tests_in_javascript(package, tmp_path):
    """The example of tests in JavaScript, run by both runners."""
    runner = package.partition("@")[0]
    for file in (ROOT / "examples" / "testing").glob("*.mjs"):
        text = file.read_text(encoding="utf-8")
        (tmp_path / file.name).write_text(text.replace('"vitest"', '"@jest/globals"') if runner == "jest" else text)
    peer.node(tmp_path, package)
    more = ["run"] if runner == "vitest" else ["--testMatch", "**/*.test.mjs"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NODE_OPTIONS": "--experimental-vm-modules"}
    done = subprocess.run(
        [shutil.which("npx"), runner, *more],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def typescript(tmp_path_factory):
    """The TypeScript example, compiled as its reader compiles it: node and the program."""
    folder = tmp_path_factory.mktemp("typescript")
    for file in (ROOT / "examples" / "typescript").glob("*.*"):
        shutil.copy(file, folder)
    program = peer.node(folder)
    peer.call([shutil.which("npx"), "tsc"], "tsc", cwd=folder)
    return [program, folder / "dist" / "main.js"]


def test_the_typescript_client(typescript, fluxwerk_server, desk):
    said = peer.run([*typescript, "a red fox", desk / "fox.png"], {"BFL_BASE_URL": fluxwerk_server}, desk)
    assert (said["type"], said["cost"]) == ("image/png", 3)
    assert size(desk / "fox.png") == (512, 256)


def test_the_typescript_client_judges_webhooks_as_ours_does(typescript, desk):
    body, secret = b'{"task_id":"t1","status":"SUCCESS","result":{"sample":"https://x.bfl.ai/y"}}', "a-secret"
    (desk / "hook.json").write_bytes(body)

    def judge(signature: str) -> dict:
        call = [*typescript, "--verify", desk / "hook.json", signature]
        return peer.run(["sh", "-c", '"$@"; true', "sh", *call], {"BFL_WEBHOOK_SECRET": secret}, desk)

    assert judge(sign(body, secret)) == {"proven": True, "id": "t1", "status": "Ready"}
    for wrong in (sign(body, "another"), sign(body + b" ", secret), "", "sha256=", "ü" * 71):
        assert judge(wrong) == {"proven": False}


def test_the_interop_page_names_the_tested_versions():
    """The page about other clients names the versions that are tried here."""
    page = (ROOT / "docs" / "how-to" / "interop.md").read_text(encoding="utf-8")
    for name in (BLACKFOREST, LITELLM, HUGGINGFACE, *AI_SDK, *RUNNERS):
        package, version = re.fullmatch(r"(.+?)(?:\[.*\])?(?:==|@)([\d.]+)", name).groups()
        assert f"`{package}` {version}" in page
