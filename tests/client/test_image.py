"""The result: bytes with their origin, saved, decoded and shown."""

from __future__ import annotations

import base64
import os
import pickle
import stat
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from fluxwerk.client.image import Image, develop
from fluxwerk.storage import Folder
from fluxwerk.testing.face_to_face import blank
from fluxwerk.types import Outcome, Status, Task

TASK = Task("abc", "https://api.bfl.ai/v1/get_result?id=abc", "flux-2-pro", cost=Decimal(3))
READY = Status(TASK, "Ready", Outcome.READY, "https://delivery.bfl.ai/a.png", 7, "a private fox", engine="offline")


@pytest.fixture
def image():
    return develop(READY, blank(640, 64))


def test_an_image_is_developed_from_its_bytes_and_its_status(image):
    assert image == Image(
        blank(640, 64), "image/png", 640, 64, TASK, seed=7, cost=Decimal(3), prompt="a private fox", engine="offline"
    )
    assert (image.model, image.suffix) == ("flux-2-pro", "png")


@pytest.mark.parametrize("settled", [Decimal("4.5"), Decimal(0)])
def test_the_settled_cost_replaces_that_of_the_submit(settled):
    status = Status(TASK, "Ready", Outcome.READY, "https://delivery.bfl.ai/a.png", cost=settled)

    assert develop(status, blank(64, 64)).cost == settled


def test_what_is_not_an_image_cannot_be_developed():
    with pytest.raises(AssertionError, match="measured before it counts"):
        develop(READY, b"<html>")


def test_an_image_is_saved_as_it_came(image, tmp_path):
    assert image.save(tmp_path / "fox.png").read_bytes() == image.data


def test_a_name_that_is_taken_is_kept_without_overwrite(image, tmp_path):
    (tmp_path / "fox.png").write_bytes(b"dear")

    with pytest.raises(FileExistsError):
        image.save(tmp_path / "fox.png", overwrite=False)

    assert (tmp_path / "fox.png").read_bytes() == b"dear"
    assert image.save(tmp_path / "fox.png").read_bytes() == image.data


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
def test_an_image_is_written_into_a_fifo_and_through_a_link(image, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    thread = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    thread.start()
    (tmp_path / "link.png").symlink_to("real.png")
    (tmp_path / "null.png").symlink_to(os.devnull)

    for name in ("pipe", "link.png", "null.png"):
        assert image.save(tmp_path / name) == tmp_path / name
    thread.join(10)

    assert read == [image.data]
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes() == image.data
    assert (tmp_path / "null.png").readlink() == Path(os.devnull)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
def test_a_folder_never_replaces_what_is_not_a_regular_file(image, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")

    with pytest.raises(FileExistsError):
        Folder(tmp_path).put("pipe.png", image.data)

    assert stat.S_ISFIFO((tmp_path / "pipe.png").lstat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.png"]


def test_an_image_opens_in_pillow_with_every_pixel_read(image):
    opened = image.to_pil()

    assert opened.size == (640, 64)
    assert opened.getpixel((639, 63)) == 0


def test_an_image_shows_itself_in_a_notebook(image):
    shown = image._repr_mimebundle_(include=None, exclude=None)

    assert base64.b64decode(shown["image/png"]) == image.data
    assert 'width="512"' in shown["text/html"]
    assert shown["text/plain"] == repr(image)


def test_an_image_shows_neither_its_bytes_nor_its_prompt(image):
    assert "private" not in repr(image)
    assert "IHDR" not in repr(image)


def test_an_image_survives_the_way_to_another_process(image):
    assert pickle.loads(pickle.dumps(image)) == image
