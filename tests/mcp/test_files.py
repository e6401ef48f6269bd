"""Files that an assistant may have read: only inside the folders that were opened, links followed first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxwerk.errors import InvalidUsageError
from fluxwerk.mcp.files import folders_of, locate


@pytest.fixture
def folder(tmp_path) -> Path:
    inside = tmp_path / "in side"
    inside.mkdir()
    (inside / "a.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    return inside.resolve()


@pytest.mark.parametrize("text", ["a.png", "./a.png", "../in side/a.png"])
def test_a_relative_path_is_looked_up_in_the_folders(folder, text):
    assert locate("image", text, [folder.parent / "none", folder]) == str(folder / "a.png")


def test_a_file_uri_is_a_path(folder):
    assert locate("image", (folder / "a.png").as_uri(), [folder]) == str(folder / "a.png")


@pytest.mark.parametrize("text", ["../secret.png", "link.png", "/etc/hostname", "file:///etc/hostname", "~/.env"])
def test_nothing_outside_the_folders_is_read(folder, text):
    with pytest.raises(InvalidUsageError, match="may not be read"):
        locate("image", text, [folder])


@pytest.mark.parametrize("text", ["file://other-host/a.png", "file:"])
def test_a_uri_of_another_machine_is_no_file(folder, text):
    with pytest.raises(InvalidUsageError):
        locate("image", text, [folder])


@pytest.mark.parametrize("text", ["https://x.example/a.png", "data:image/png;base64,eA=="])
def test_a_link_is_left_to_the_service(folder, text):
    assert locate("image", text, [folder]) == text


def test_only_roots_of_files_open_a_folder(folder):
    assert folders_of([folder.as_uri(), "https://x.example/", "file://other/x"]) == [folder]
