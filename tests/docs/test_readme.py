"""The README is executed: every block of it, against a server on this machine."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"
SCRIPTS = Path(sys.executable).parent


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture
def desk(tmp_path):
    for name, colour in (("cat.jpg", "orange"), ("room.jpg", "brown"), ("sunset.png", "red")):
        Image.new("RGB", (512, 512), colour).save(tmp_path / name)
    mask = Image.new("L", (512, 512), 0)
    mask.paste(255, (128, 256, 384, 512))
    mask.save(tmp_path / "mask.png")
    return tmp_path


@pytest.fixture
def environment(fluxwerk_server):
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "BFL_API_KEY": "any-key", "BFL_BASE_URL": fluxwerk_server}


def size(path):
    with Image.open(path) as opened:
        return opened.size


def run(command, desk, environment):
    return subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_readme_is_no_longer_than_a_person_reads():
    assert len(README.splitlines()) <= 160


def test_every_block_of_the_readme_is_of_a_kind_that_is_executed_here():
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}


def test_the_first_command_makes_a_picture_of_the_size_it_says(desk, environment):
    install, _, command = blocks("sh")[0].partition(" && ")
    assert install == 'pip install ".[all]"'

    # An image that is there is not replaced.
    (desk / "sunset.png").unlink()

    done = run(["bash", "-euc", command], desk, environment)

    assert done.returncode == 0, done.stderr
    assert size(desk / "sunset.png") == (1024, 1024)
    line = done.stdout.strip()
    assert "\n" not in line
    for part in (
        "sunset.png",
        "1024×1024",
        "flux-2-pro",
        "seed",
        "estimated 3 credits",
        "offline",
        "not by FLUX",
        " s",
    ):
        assert part in line


def test_the_second_command_is_the_one_that_ci_runs():
    assert blocks("sh")[1] == 'pip install ".[test]" && pytest\n'
    assert 'bash -euo pipefail -c "$line"' in (ROOT / ".ci" / "run").read_text()


def test_the_command_lines_run_as_they_stand(desk, environment):
    done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")[2]], desk, environment)

    assert done.returncode == 0, done.stderr
    assert size(desk / "night.png") == (512, 512)
    assert size(desk / "lake.png") == (512, 512)
    assert not (desk / "fox.png").exists()


def test_the_server_starts_by_the_line_that_starts_it(environment, desk):
    line = blocks("sh")[3].strip().replace("--port 8000", "--port 0")
    with subprocess.Popen(line.split(), env=environment, cwd=desk, stderr=subprocess.PIPE, text=True) as server:
        greeting = server.stderr.readline()
        server.send_signal(signal.SIGTERM)
        server.stderr.read()

    assert "fluxwerk serves the BFL API at http://127.0.0.1:" in greeting
    assert "engine offline" in greeting


def test_a_batch_runs_by_the_lines_that_show_it(desk, environment):
    (desk / "prompts.csv").write_text("prompt,width,height\na fox,64,64\nan owl,64,64\n")

    done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")[4]], desk, environment)

    assert done.returncode == 0, done.stderr
    assert '"saved":2' in done.stdout.replace(" ", "")


def test_the_python_blocks_run_in_the_order_in_which_they_stand(desk, environment):
    program = "\n".join(text for text in blocks("python") if "def test_" not in text)
    program = program.replace("with Client() as client:", "client = Client()\nif True:")
    program = program.replace(ADDRESS, environment["BFL_BASE_URL"])
    program += "\nassert later.task == task\nassert local.generate('x', width=64, height=64).width == 64\n"

    done = run([sys.executable, "-W", "error", "-c", program], desk, environment)

    assert done.returncode == 0, done.stderr
    assert size(desk / "fox.jpeg") == (1024, 768)


def test_the_example_of_a_test_passes_in_a_fresh_project(desk, environment):
    """The example of a test passes in a project that has only installed fluxwerk."""
    example = next(text for text in blocks("python") if "def test_" in text)
    (desk / "test_example.py").write_text("from fluxwerk import Client\n\n\n" + example)

    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"], desk, environment)

    assert "1 passed" in done.stdout, done.stdout + done.stderr
