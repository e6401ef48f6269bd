"""`fluxwerk show` and `fluxwerk history`: where images came from."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
from click.testing import CliRunner
from PIL import Image

from fluxwerk.batch.batch import Batch
from fluxwerk.cli.group import group
from fluxwerk.cli.picture import draw
from support.images import png

PROMPTS = ("a red fox", "a white owl")


@pytest.fixture
def folder(fluxwerk_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Batch(tmp_path / "animals.ledger", output=tmp_path / "images") as batch:
        batch.plan([{"prompt": prompt, "width": 256, "height": 256, "seed": 7} for prompt in PROMPTS])
        batch.run()
    return tmp_path


def fluxwerk(*words):
    return CliRunner().invoke(group, [str(word) for word in words])


def test_an_image_tells_its_origin(folder):
    file = min((folder / "images").glob("*.jpeg"))
    done = fluxwerk("show", file)
    assert done.exit_code == 0, done.output
    assert "256×256, image/jpeg" in done.stdout
    assert re.search(r"prompt +a red fox", done.stdout)
    assert f"fluxwerk replay {file}" in done.stdout
    assert json.loads(fluxwerk("show", file, "--json").stdout)["origin"]["model"] == "flux-2-pro"


def test_an_image_without_an_origin_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(png(16, 16))
    done = fluxwerk("show", tmp_path / "a.png")
    assert done.exit_code == 0
    assert "has no origin" in done.stdout


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("text")
    assert fluxwerk("show", tmp_path / "a.png").exit_code == 2


def test_history_lists_the_newest_first(folder):
    lines = fluxwerk("history").stdout.splitlines()
    assert len(lines) == 2
    assert all("seed 7, 3 credits ($0.03)" in line for line in lines)
    assert {line.rpartition(": ")[2] for line in lines} == set(PROMPTS)
    rows = [json.loads(line) for line in fluxwerk("history", "--json").stdout.splitlines()]
    assert rows[0]["saved"] >= rows[1]["saved"]


def test_history_finds_and_limits(folder):
    assert "owl" in fluxwerk("history", "--find", "OWL").stdout
    assert len(fluxwerk("history", "-n", "1").stdout.splitlines()) == 1
    assert "No image was found in 1 ledgers" in fluxwerk("history", "--find", "bear").stderr


def test_a_terminal_shows_the_picture_in_its_own_way():
    data = png(300, 200)
    kitty = draw(data, {"TERM": "xterm-kitty"})
    chunks = re.findall(r"\033_G([^;]*);([^\033]*)\033\\", kitty)
    assert chunks[0][0].startswith("a=T,f=100,")
    assert chunks[-1][0].endswith("m=0")
    with Image.open(io.BytesIO(base64.b64decode("".join(text for _, text in chunks)))) as shown:
        assert shown.size == (300, 200)
    iterm = re.fullmatch(r"\033\]1337;File=inline=1;size=(\d+):(.*)\a", draw(data, {"TERM_PROGRAM": "iTerm.app"}))
    assert len(base64.b64decode(iterm[2])) == int(iterm[1])
    assert draw(data, {"COLORTERM": "truecolor"}).count("▀") == 48 * 16
    assert draw(data, {}) == ""
    assert draw(b"text", {"COLORTERM": "truecolor"}) == draw(b"text", {"TERM": "xterm-kitty"}) == ""
