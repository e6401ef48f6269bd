"""Whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from fluxwerk.errors import InvalidUsageError, StorageError
from fluxwerk.storage import Folder, open_storage, save


def test_bytes_are_saved_and_the_path_returned(tmp_path):
    path = save(b"fox", str(tmp_path / "fox.png"))

    assert path == tmp_path / "fox.png"
    assert path.read_bytes() == b"fox"


def test_folders_on_the_way_are_made(tmp_path):
    assert save(b"fox", tmp_path / "a" / "b" / "fox.png").read_bytes() == b"fox"


# Only an opened folder can be flushed; the hook hears of every one, and cannot be taken off again.
FLUSHED = """
import os, sys
from fluxwerk.storage import save
sys.addaudithook(lambda event, told: event == "open" and os.path.isdir(told[0]) and print(told[0]))
save(b"fox", sys.argv[1], lasting=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="folders are not flushed there")
def test_a_lasting_file_is_flushed_with_its_folders(tmp_path):
    """What is to last is flushed with its folder and with those around the new ones."""
    for target, flushed in ("a/b/fox.png", ["a/b", "a", "."]), ("a/b/owl.png", ["a/b"]):
        command = [sys.executable, "-c", FLUSHED, tmp_path / target]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        assert done.stdout.split() == [str(tmp_path / name) for name in flushed]


def test_an_old_file_is_replaced(tmp_path):
    save(b"an old and longer fox", tmp_path / "fox.png")

    assert save(b"new", tmp_path / "fox.png").read_bytes() == b"new"


def test_nothing_but_the_file_is_left(tmp_path):
    save(b"fox", tmp_path / "fox.png")

    assert [path.name for path in tmp_path.iterdir()] == ["fox.png"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    save(b"old", tmp_path / "fox.png")

    with pytest.raises(TypeError):
        save("not bytes", tmp_path / "fox.png")

    assert (tmp_path / "fox.png").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["fox.png"]


def test_a_folder_is_not_replaced_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "fox").mkdir()

    with pytest.raises(OSError, match="fox"):
        save(b"fox", tmp_path / "fox")

    assert [path.name for path in tmp_path.iterdir()] == ["fox"]


def test_a_name_may_be_as_long_as_the_folder_allows(tmp_path):
    name = "f" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) + ".png"

    assert save(b"fox", tmp_path / name).name == name


def test_a_name_may_be_long_in_any_script(tmp_path):
    assert save(b"fox", tmp_path / ("狐" * 80 + ".png")).read_bytes() == b"fox"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_file_has_the_rights_that_the_process_gives_to_new_files(tmp_path):
    old = os.umask(0o027)
    try:
        path = save(b"fox", tmp_path / "fox.png")
    finally:
        os.umask(old)

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_many_threads_save_to_one_name_and_one_of_them_wins_whole(tmp_path):
    pictures = [bytes([number]) * 50_000 for number in range(16)]
    before = os.umask(0o022)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda picture: save(picture, tmp_path / "fox.png"), pictures))
    after = os.umask(before)

    assert (tmp_path / "fox.png").read_bytes() in pictures
    assert [path.name for path in tmp_path.iterdir()] == ["fox.png"]
    assert after == 0o022


def test_a_name_below_a_file_is_refused_and_not_taken_for_a_name_in_use(tmp_path):
    folder = Folder(tmp_path)
    folder.put("a.png", b"1")
    with pytest.raises(InvalidUsageError, match="lies below a file"):
        folder.put("a.png/b.png", b"2")


@pytest.mark.parametrize(
    ("name", "reason"), [("file.png/fox.png", "below"), ("folder", "is a folder"), ("../fox.png", "leads out")]
)
def test_a_name_that_can_never_be_stored_is_refused(tmp_path, name, reason):
    (tmp_path / "file.png").write_bytes(b"a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidUsageError, match=reason):
        Folder(tmp_path).check_name(name)
    Folder(tmp_path).check_name("folder/new/fox.png")


def test_a_fifo_is_written_to_and_not_replaced(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(fifo.read_bytes)
        save(b"bytes", fifo)
        assert reading.result() == b"bytes"
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("root", "reason"), [("file.png", "is a file, and must be a folder"), ("file.png/images", "cannot be written")]
)
def test_a_folder_that_cannot_be_is_refused_by_its_check(tmp_path, root, reason):
    (tmp_path / "file.png").write_bytes(b"a")
    with pytest.raises(InvalidUsageError, match=reason):
        Folder(tmp_path / root).check()
    Folder(tmp_path / "new").check()
    assert list((tmp_path / "new").iterdir()) == []


def test_what_is_removed_is_gone_and_may_be_gone_already(tmp_path):
    folder = Folder(tmp_path)
    folder.put("a/fox.png", b"1")
    folder.remove("a/fox.png")
    folder.remove("a/fox.png")
    assert folder.get("a/fox.png") is None
    folder.put("b/fox.png", b"1")
    with pytest.raises(StorageError, match="cannot be removed"):
        folder.remove("b")


def test_a_folder_knows_sizes_and_makes_no_links(tmp_path):
    folder = Folder(tmp_path)
    folder.put("fox.png", b"fox")

    assert (folder.size("fox.png"), folder.size("owl.png")) == (3, None)
    assert folder.link("fox.png", 60) is None


def test_a_store_that_signs_no_links_makes_none():
    pytest.importorskip("obstore", reason="the extra storage is not installed")

    assert open_storage("memory://").link("fox.png", 60) is None
