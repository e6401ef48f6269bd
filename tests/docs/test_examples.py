"""The examples are executed: each as its reader runs it, against a server on this machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from fluxwerk.webhook import SIGNATURE, sign

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY, TOKEN = "CANARY-webhook-secret", "CANARYtoken"
TRIED_HERE = {
    "notebook.ipynb",
    "curl.sh",
    "quickstart.py",
    "many.py",
    "resume.py",
    "webhook_fastapi.py",
    "webhook_flask.py",
}
TESTING = {"shop.py", "test_mug.py", "test_shop.py", "test_shop_unittest.py", "shop.test.mjs", "server.mjs"}
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")


@pytest.fixture
def environment(fluxwerk_server, tmp_path):
    return {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "BFL_API_KEY": "a-key",
        "BFL_BASE_URL": fluxwerk_server,
        "BFL_WEBHOOK_SECRET": KEY,
        "HOOK_TOKEN": TOKEN,
        "PUBLIC_URL": "https://app.example/hooks",
        "IMAGES": str(tmp_path / "images"),
    }


@pytest.fixture
def example(environment, tmp_path):
    def run(name: str, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        program = ["sh"] if name.endswith(".sh") else [sys.executable, "-W", "error"]
        return subprocess.run(
            [*program, str(EXAMPLES / name), *(str(word) for word in words)],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        opened.load()
        return opened.size


def test_every_example_is_tried_here_or_in_the_interop_group():
    assert {path.name for path in EXAMPLES.glob("*.*")} == TRIED_HERE
    assert {path.name for path in EXAMPLES.joinpath("testing").glob("*.*")} == TESTING
    assert {path.name for path in EXAMPLES.joinpath("typescript").glob("*.ts")} == {"client.ts", "main.ts"}


def test_the_quickstart(example, tmp_path):
    done = example("quickstart.py", "A red fox")
    assert done.returncode == 0, done.stderr
    assert "quickstart.jpeg: 1024×768" in done.stdout
    assert size(tmp_path / "quickstart.jpeg") == (1024, 768)


def test_the_quickstart_says_what_is_wrong_with_the_key(example):
    done = example("quickstart.py", BFL_API_KEY="")
    assert done.returncode != 0
    assert "No API key" in done.stderr


def test_many(example, tmp_path):
    (tmp_path / "prompts.txt").write_text("a fox\n\na hare\na hen\n", encoding="utf-8")
    done = example("many.py", "prompts.txt", "folder")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {f"0000{n}.jpeg" for n in (1, 2, 3)}
    assert size(tmp_path / "folder" / "00001.jpeg") == (512, 512)


def test_resume(example, tmp_path):
    submitted = example("resume.py", "submit", "a fox")
    assert submitted.returncode == 0, submitted.stderr
    (tmp_path / "task.json").write_text(submitted.stdout)
    for name in ("fox.jpeg", "again.jpeg"):
        assert example("resume.py", "collect", "task.json", name).returncode == 0
    assert size(tmp_path / "fox.jpeg") == (512, 512)
    assert (tmp_path / "fox.jpeg").read_bytes() == (tmp_path / "again.jpeg").read_bytes()


@needs_curl
def test_curl(example, tmp_path):
    done = example("curl.sh", 'A "red" fox \\ in the\nsnow', "fox.jpeg", "flux-2-klein-4b")
    assert done.returncode == 0, done.stderr
    assert "saved as fox.jpeg" in done.stderr
    assert size(tmp_path / "fox.jpeg") == (1024, 1024)


@needs_curl
def test_curl_says_what_was_refused(example, tmp_path):
    done = example("curl.sh", "a fox", "fox.jpeg", "flux-9")
    assert done.returncode == 1
    assert "Not Found" in done.stderr
    assert not (tmp_path / "fox.jpeg").exists()


@needs_curl
@pytest.mark.parametrize(
    ("base", "url", "is_trusted"),
    [
        ("https://api.bfl.ai", "https://api.eu2.bfl.ai/v1/get_result?id=1", True),
        ("https://api.bfl.ai", "https://api.bfl.ai/v1/get_result?id=1", True),
        ("https://api.bfl.ai", "http://api.eu2.bfl.ai/v1/get_result?id=1", False),
        ("https://api.bfl.ai", "https://evil.example/.bfl.ai/v1", False),
        ("https://api.bfl.ai", "https://evil.example?x.bfl.ai/", False),
        ("https://api.bfl.ai", "https://evil.example#.bfl.ai/", False),
        ("https://api.bfl.ai", "https://api.bfl.ai@evil.example/", False),
        ("https://api.bfl.ai", "https://evilbfl.ai/", False),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/get_result?id=1", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:80001/v1", False),
        ("http://127.0.0.1:8000", "https://api.bfl.ai/v1/get_result", False),
    ],
)
def test_curl_shows_the_key_to_nobody_else(base, url, is_trusted):
    function = re.search(r"^trusted\(\) \{.*?^\}", (EXAMPLES / "curl.sh").read_text(), re.MULTILINE | re.DOTALL)[0]
    done = subprocess.run(["sh", "-c", f'base={base}\n{function}\ntrusted "$1"', "sh", url], check=False)
    assert (done.returncode == 0) is is_trusted


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"], "5 passed"),
        (["unittest", "test_shop_unittest"], "OK"),
    ],
)
def test_the_tests_of_an_application(command, told, tmp_path):
    for file in EXAMPLES.joinpath("testing").glob("*.py"):
        shutil.copy(file, tmp_path)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("BFL_")}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=bare,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert told in done.stdout + done.stderr


def test_a_cassette_is_recorded_and_replayed(fluxwerk_server, tmp_path):
    shutil.copy(EXAMPLES / "testing" / "test_mug.py", tmp_path)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("BFL_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mug.py"]
    subprocess.run([*command, "--fluxwerk-record"], cwd=tmp_path, check=True, timeout=60)
    assert list(tmp_path.glob("cassettes/*.json"))
    subprocess.run(command, cwd=tmp_path, env=bare, check=True, timeout=60)


def test_the_blocks_of_the_page_on_testing_are_parts_of_the_examples():
    page = (EXAMPLES.parent / "docs" / "how-to" / "testing.md").read_text(encoding="utf-8")
    written = "\n".join(path.read_text(encoding="utf-8") for path in EXAMPLES.joinpath("testing").glob("*.*"))
    blocks = re.findall(r"^```(?:python|js)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert [block for block in blocks if block not in written] == []
    assert len(blocks) >= 4


def test_the_python_on_the_webhooks_page_runs(environment):
    """The python on the page about webhooks runs as far as it can stand alone."""
    page = (EXAMPLES.parent / "docs" / "how-to" / "webhooks.md").read_text(encoding="utf-8")
    whole, *fragments = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    program = whole + "\nassert receiver.options['webhook_url'].startswith('https://your.host/hooks/an-')"
    subprocess.run([sys.executable, "-W", "error", "-c", program], env=environment, check=True, timeout=60)
    for fragment in fragments:
        compile(fragment, "webhooks.md", "exec")


@contextmanager
def serving(command: list[str], environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a web application's own server until the block ends, and let it finish what it has taken in."""
    with subprocess.Popen(
        [sys.executable, "-m", *command], cwd=EXAMPLES.parent, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        said: list[str] = []
        try:
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", said[-1] if said else "")):
                said.append(process.stderr.readline())
                assert said[-1], "".join(said)
            yield found[0], process
        finally:
            process.send_signal(signal.SIGINT)
            process.stderr.read()


APPLICATIONS = {
    "fastapi": (["uvicorn", "examples.webhook_fastapi:app", "--port", "0"], f"/hooks/{TOKEN}", 200),
    "flask": (["flask", "--app", "examples/webhook_flask", "run", "--port", "0"], "/hooks", 204),
}


@pytest.mark.parametrize("framework", APPLICATIONS)
def test_a_web_application_takes_in_webhooks(framework, environment, tmp_path):
    command, path, taken = APPLICATIONS[framework]
    with serving(command, environment) as (base, _), httpx2.Client(base_url=base, timeout=30) as http:
        task = http.post("/images", params={"prompt": "a fox"}).json()["task"]
        body = (
            f'{{"task_id": "{task}", "status": "SUCCESS", "result": {{"sample": "https://evil.example/x"}}}}'.encode()
        )
        good = {SIGNATURE: sign(body, KEY)}

        assert http.get(path).status_code == 405
        for headers in ({}, {SIGNATURE: sign(body + b" ", KEY)}, {SIGNATURE: sign(body, "another")}):
            assert http.post(path, content=body, headers=headers).status_code == 401
        assert http.post(path, content=b"x", headers={SIGNATURE: sign(b"x", KEY)}).status_code == 400
        large = b" " * (256 * 1024 + 1)
        assert http.post(path, content=large, headers={SIGNATURE: sign(large, KEY)}).status_code == 413
        assert http.post(path, content=body, headers=good).status_code == taken
        # A sender that did not hear the answer sends it again.
        assert http.post(path, content=body, headers=good).status_code in (taken, 404)

    (image,) = (tmp_path / "images").iterdir()
    assert image.name == f"{task}.jpeg"
    assert size(image) == (1024, 1024)
