"""`fluxwerk generate`: several images at once, and what is checked before anything is paid for."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from fluxwerk.cli.group import group
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.testing import loopback

SMALL = ("--width", "64", "--height", "64")
KEY = "a-key"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    monkeypatch.delenv("BFL_BASE_URL", raising=False)
    return tmp_path


def generate(*words, **environment):
    return CliRunner().invoke(group, ["generate", *words], env=environment)


def test_several_images_are_numbered_and_summed_up_once():
    done = generate("a fox", "-n", "3", *SMALL, "--offline", "-o", "fox.png")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path().iterdir()) == ["fox-1.png", "fox-2.png", "fox-3.png"]
    assert len({path.read_bytes() for path in Path().iterdir()}) == 3
    assert done.stdout.splitlines()[-1].startswith("3 of 3 images saved, nothing charged, ")


def test_the_numbers_of_ten_images_sort_as_they_count():
    generate("a fox", "-n", "10", *SMALL, "--offline", "-o", "fox.png")
    assert min(path.name for path in Path().iterdir()) == "fox-01.png"


def test_with_a_seed_each_image_takes_the_next_one():
    done = generate("a fox", "-n", "3", "--seed", "7", *SMALL, "--offline", "--json")
    facts = json.loads(done.stdout)
    assert [image["seed"] for image in facts["images"]] == [7, 8, 9]
    assert [image["file"] for image in facts["images"]] == [f"flux-2-pro-{seed}.jpeg" for seed in (7, 8, 9)]
    assert (facts["count"], facts["failed"], facts["estimated_cost"], facts["sheet"]) == (3, 0, 9, None)


def test_a_contact_sheet_shows_every_image():
    done = generate("a fox", "-n", "5", *SMALL, "--offline", "-o", "fox.png", "--sheet", "sheet.png")
    assert done.stdout.rstrip().endswith("contact sheet sheet.png")
    with Image.open("sheet.png") as sheet:
        assert sheet.size == (3 * 400 + 16, 2 * 420 + 16)
        filled = [
            sheet.crop((16 + x * 400, 336 + y * 420, 80 + x * 400, 400 + y * 420)) for y in (0, 1) for x in range(3)
        ]
    assert [image.getextrema() != ((255, 255),) * 3 for image in filled] == [True] * 5 + [False]


@pytest.mark.parametrize(("name", "word"), [("sheet.gif", ".webp"), ("taken.png", "exists"), ("no/s.png", "does not")])
def test_a_sheet_that_cannot_be_written_is_refused_before_the_submit(name, word):
    Path("taken.png").write_text("mine")
    done = generate("a fox", "-n", "2", *SMALL, "--offline", "-o", "fox.png", "--sheet", name)
    assert (done.exit_code, [path.name for path in Path().iterdir()]) == (2, ["taken.png"])
    assert f"Error: --sheet = '{name}': " in done.stderr
    assert word in done.stderr


def test_one_failure_stops_no_other_and_decides_the_exit_code():
    with loopback(trouble=[FaultRule(on="submit", do="moderate", nth=2)]) as base:
        done = generate("a fox", "-n", "3", *SMALL, "--base-url", base, "-o", "fox.png", BFL_API_KEY=KEY)
    assert done.exit_code == 5
    assert len(list(Path().iterdir())) == 2
    assert done.stderr.count("Error: ") == 1
    assert "2 of 3 images saved, cost 6 credits ($0.06), " in done.stdout


def test_the_same_error_of_all_is_said_once():
    with loopback(trouble=[FaultRule(on="submit", do="status", status=402)]) as base:
        done = generate("a fox", "-n", "4", *SMALL, "--base-url", base, BFL_API_KEY=KEY)
    assert (done.exit_code, done.stderr.count("Error: ")) == (4, 1)
    assert "0 of 4 images saved" in done.stdout


def test_a_dry_run_of_several_shows_the_price_of_all():
    done = generate("a fox", "-n", "4", "--dry-run")
    assert "about 12 credits ($0.12) for 4 images, 3 credits ($0.03) each. Nothing was sent." in done.stdout


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_a_blank_prompt_is_refused_unless_it_is_allowed(prompt):
    done = generate(prompt, "--dry-run")
    assert done.exit_code == 2
    assert "must hold at least one word" in done.stderr
    assert "--allow-empty-prompt" in done.stderr
    assert generate(prompt, "--dry-run", "--allow-empty-prompt").exit_code == 0


def test_a_blank_prompt_is_refused_where_the_model_needs_none():
    assert generate("", "-m", "flux-pro-1.1", "--dry-run").exit_code == 2


def test_a_size_off_the_grid_is_announced_before_the_submit():
    done = generate("a fox", "--width", "1001", "--height", "512", "--dry-run")
    assert "the image will be 992×512 instead of 1001×512" in done.stderr
    assert "multiples of 16" in done.stderr
    assert "the image will be" not in generate("a fox", "--width", "992", "--height", "512", "--dry-run").stderr


def test_ctrl_c_names_every_task_that_is_paid_for():
    with loopback(pace=lambda _: 60.0) as base:
        command = [sys.executable, "-m", "fluxwerk", "generate", "a fox", "-n", "2", "--base-url", base]
        environment = {**os.environ, "BFL_API_KEY": KEY}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            tasks = set()
            while len(tasks) < 2:
                line = process.stderr.readline()
                tasks |= {line.split()[-1]} if line.startswith("submitted as") else set()
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
    assert process.returncode == 130
    assert all(f"fluxwerk wait {task} " in rest for task in tasks)
    assert "Traceback" not in rest


def test_an_image_that_cannot_be_saved_stops_the_series():
    # The name is as long as a folder takes, and the number makes it longer.
    done = generate("a fox", "-n", "3", *SMALL, "--offline", "-o", "a" * 251 + ".png")
    assert done.exit_code == 8
    assert done.stderr.count("cannot be written") == 1
    assert "0 of 3 images saved" in done.stdout


def test_a_contact_sheet_never_replaces_an_image():
    done = generate("a fox", "-n", "2", *SMALL, "--offline", "-o", "k.png", "--sheet", "k-1.png")
    assert done.exit_code != 0
    assert "k-1.png cannot be written" in done.stderr
    with Image.open("k-1.png") as image:
        assert image.size == (64, 64)


def test_a_sheet_that_is_an_option_is_refused_before_the_submit():
    done = generate("a fox", *SMALL, "--offline", "--sheet", "-o")
    assert done.exit_code == 2
    assert "must be the name of a file" in done.stderr


def test_a_closed_stderr_loses_no_image(tmp_path):
    command = [sys.executable, "-m", "fluxwerk", "generate", "a fox", *SMALL, "--offline", "-o", "kept.png"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        subprocess.run(command, check=False, stderr=closed, stdout=subprocess.DEVNULL, timeout=60)
    with Image.open("kept.png") as image:
        assert image.size == (64, 64)


def test_a_series_tells_images_money_rate_and_the_time_left(fluxwerk_server):
    done = generate("a fox", "-n", "3", *SMALL, "--base-url", fluxwerk_server, "-o", "fox.png", BFL_API_KEY=KEY)
    assert done.exit_code == 0
    assert re.search(
        r"^2 of 3 images saved, 6 credits \(\$0\.06\), \d+\.\d/s, about \d+ s left$", done.stderr, re.MULTILINE
    )
