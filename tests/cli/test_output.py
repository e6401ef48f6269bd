"""Where an image goes: the names that are allowed, numbers for names that are taken, and what is not a regular file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from fluxwerk.cli.group import group
from fluxwerk.imagefile import fault, measure

SMALL = ("generate", "a fox", "--width", "64", "--height", "64")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def on_server(fluxwerk_server):
    def run(*words):
        where = ("--base-url", fluxwerk_server)
        return CliRunner().invoke(group, [*map(str, words), *where], env={"BFL_API_KEY": "a-key"})

    return run


def offline(*words):
    return CliRunner().invoke(group, [*map(str, words), "--offline"])


def names():
    return [path.name for path in Path().iterdir()]


def kind(path):
    return measure(Path(path).read_bytes()).content_type


@pytest.mark.parametrize("name", ["fox.tiff", "fox.gif", "fox.bmp", "fox.heic", "fox.txt", "fox.v2"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_name_of_another_format_is_refused_before_anything_is_paid(name, more):
    done = offline(*SMALL, "-o", name, *more)

    assert done.exit_code == 2
    assert "must end in .png, .jpg, .jpeg or .webp" in done.stderr
    assert not Path(name).exists()


def test_wait_refuses_a_name_of_another_format(on_server):
    assert "must end in .png" in on_server("wait", "some-task", "-o", "fox.tiff").stderr


def test_a_name_without_a_suffix_gets_that_of_the_image(on_server):
    done = on_server(*SMALL, "-o", "fox")

    assert done.stdout.startswith("fox.jpeg: 64×64")
    assert kind("fox.jpeg") == "image/jpeg"
    assert names() == ["fox.jpeg"]


def test_a_format_names_the_file(on_server):
    assert on_server(*SMALL, "-o", "fox", "--format", "webp").stdout.startswith("fox.webp: ")
    assert on_server(*SMALL, "--seed", "5", "--format", "png").stdout.startswith("flux-2-pro-5.png: ")


def test_a_collected_image_of_another_format_gets_the_right_suffix(on_server):
    task = json.loads(on_server(*SMALL, "--json", "-o", "a.png").stdout)["task"]

    done = on_server("wait", task["id"], "--polling-url", task["polling_url"], "-o", "b.jpg")

    assert "The image is a PNG, so it is saved as b.png and not as b.jpg." in done.stderr
    assert kind("b.png") == "image/png"
    assert not Path("b.jpg").exists()


def test_an_existing_image_stays_and_the_new_one_is_numbered(on_server):
    """An image that exists already is never replaced; the new one gets a number."""
    files = [json.loads(on_server(*SMALL, "--json", "--seed", n, "-o", "fox.png").stdout)["file"] for n in (1, 2, 3)]

    assert files == ["fox.png", "fox-2.png", "fox-3.png"]
    assert len({Path(file).read_bytes() for file in files}) == 3
    fourth = on_server(*SMALL, "-o", "fox.png")
    assert "fox.png exists, so the image is saved as fox-4.png; --overwrite would replace it." in fourth.stderr
    assert fourth.stdout.startswith("fox-4.png: ")


def test_a_file_named_after_its_seed_is_numbered_as_well(on_server):
    words = (*SMALL, "-m", "flux-2-flex", "--seed", "5")

    assert [on_server(*words).stdout.partition(":")[0] for _ in range(2)] == [
        "flux-2-flex-5.jpeg",
        "flux-2-flex-5-2.jpeg",
    ]


def test_overwrite_replaces_the_file(on_server):
    for seed in (1, 2):
        assert on_server(*SMALL, "--seed", seed, "-o", "fox.png", "--overwrite").stdout.startswith("fox.png: ")

    assert names() == ["fox.png"]


def test_edit_fill_replay_and_wait_number_as_well(on_server):
    Image.new("RGB", (256, 256), "red").save("photo.png")
    mask = Image.new("L", (256, 256))
    mask.paste(255, (0, 0, 99, 99))
    mask.save("mask.png")
    task = json.loads(on_server(*SMALL, "--json", "-o", "a.png").stdout)["task"]
    origin = {"fluxwerk": 1, "model": "flux-2-pro", "request": {"prompt": "a fox", "width": 64, "height": 64}}
    Path("a.png.json").write_text(json.dumps(origin))
    for words in (
        ("edit", "a lake", "-i", "photo.png"),
        ("fill", "a lake", "-i", "photo.png", "--mask", "mask.png"),
        ("replay", "a.png"),
        ("wait", task["id"], "--polling-url", task["polling_url"]),
    ):
        Path("taken.png").write_bytes(b"dear")
        done = on_server(*words, "-o", "taken.png")
        assert "taken.png exists, so the image is saved as taken-2.png" in done.stderr, done.output
        assert Path("taken.png").read_bytes() == b"dear"
        assert fault(Path("taken-2.png").read_bytes()) is None
        done = on_server(*words, "-o", "taken.png", "--overwrite")
        assert fault(Path("taken.png").read_bytes()) is None, done.output
        Path("taken-2.png").unlink()


def test_each_of_several_images_is_numbered_past_what_is_there(on_server):
    Path("fox-2.png").write_bytes(b"dear")

    done = on_server(*SMALL, "--count", 2, "-o", "fox.png")

    assert sorted(names()) == ["fox-1.png", "fox-2-2.png", "fox-2.png"], done.output
    assert Path("fox-2.png").read_bytes() == b"dear"


@pytest.mark.skipif(os.name == "nt", reason="a device of POSIX")
def test_several_images_do_not_go_into_one_device(on_server):
    assert "takes one image only" in on_server(*SMALL, "--count", 2, "-o", "/dev/null").stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
def test_a_fifo_is_written_into_and_stays_one(on_server):
    os.mkfifo("pipe")
    read = []
    thread = threading.Thread(target=lambda: read.append(Path("pipe").read_bytes()), daemon=True)
    thread.start()

    done = on_server(*SMALL, "-o", "pipe")
    thread.join()

    assert done.exit_code == 0, done.output
    assert measure(read[0]).size == (64, 64)
    assert stat.S_ISFIFO(Path("pipe").lstat().st_mode)
    assert names() == ["pipe"]


@pytest.mark.skipif(os.name == "nt", reason="a device of POSIX")
def test_a_link_to_a_device_is_written_through_and_stays_one(on_server):
    Path("fox.png").symlink_to("/dev/null")

    assert on_server(*SMALL, "-o", "fox.png").exit_code == 0
    assert on_server(*SMALL, "-o", "fox.png", "--overwrite").exit_code == 0
    assert Path("fox.png").readlink() == Path("/dev/null")
    assert names() == ["fox.png"]


@pytest.mark.skipif(os.name == "nt", reason="a link needs a right on Windows")
def test_a_link_to_a_file_stays_one_and_so_does_the_file(on_server):
    Path("real.png").write_bytes(b"dear")
    Path("fox.png").symlink_to("real.png")

    done = on_server(*SMALL, "-o", "fox.png")

    assert done.stdout.startswith("fox-2.png: ")
    assert Path("fox.png").readlink() == Path("real.png")
    assert Path("real.png").read_bytes() == b"dear"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
def test_an_image_that_cannot_be_written_is_paid_for_and_can_be_collected(on_server):
    done = on_server(*SMALL, "-o", "/dev/full")

    assert done.exit_code != 0
    assert "/dev/full cannot be written: No space left on device" in done.stderr
    assert "fluxwerk wait " in done.stderr
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.parametrize("name", ["/proc/fox.png", "a" * 300 + ".png", "taken/fox.png", "taken/folder/fox.png"])
def test_a_place_that_takes_no_file_is_refused_before_anything_is_paid(name):
    if name.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("Linux has /proc")
    Path("taken").write_text("")

    done = offline(*SMALL, "-o", name)

    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
    assert names() == ["taken"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX names stdout as a file")
@pytest.mark.parametrize("how", ["a pipe", "a file"])
def test_an_image_on_stdout_is_the_only_thing_there(tmp_path, how):
    command = [sys.executable, "-m", "fluxwerk", *SMALL, "--offline", "-o", "/dev/stdout"]
    with (tmp_path / "out").open("w+b") as file:
        out = subprocess.PIPE if how == "a pipe" else file
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=True)
        file.seek(0)
        data = done.stdout or file.read()

    assert fault(data) is None
    assert data.endswith(b"\xff\xd9")
    assert b"/dev/stdout: 64\xc3\x97" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX names stdout as a file")
def test_json_and_the_image_cannot_both_go_to_stdout():
    command = [sys.executable, "-m", "fluxwerk", *SMALL, "--offline", "--json", "-o", "/dev/stdout"]

    done = subprocess.run(command, capture_output=True, check=False)

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--json: writes to stdout, and so does --output" in done.stderr
