from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxwerk.batch import plan
from fluxwerk.batch.run import EndReason, RunOptions, RunProgress
from fluxwerk.batch.saver import Saver
from fluxwerk.errors import InvalidUsageError, StorageError
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Saved
from fluxwerk.protocol import wire
from fluxwerk.storage import Folder
from fluxwerk.types import HttpRequest, Response
from support import judge
from support.site import Site, honest


def never_ready(request: HttpRequest, answer: Callable[[], Response]) -> Response:
    if "get_result" in request.url:
        return Response(200, wire.JSON, wire.dump({"id": "it", "status": "Pending"}))
    return answer()


class Place(Folder):
    """A folder that stops taking files after some, as one does whose rights or disk are lost."""

    def __init__(self, root: Path, most: int, error: Exception) -> None:
        super().__init__(root)
        self.left, self.error = most, error

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        if self.left <= 0:
            raise StorageError("the folder takes nothing")
        self.left -= 1
        return super().put(name, data, overwrite=overwrite)

    def check(self) -> None:
        if self.left <= 0:
            raise self.error


def test_nothing_is_submitted_where_no_image_can_be_stored(tmp_path: Path):
    site = Site(tmp_path, 5)
    (tmp_path / "file").write_bytes(b"")
    site.keep = Saver(Folder(tmp_path / "file"))
    with pytest.raises(InvalidUsageError, match="is a file, and must be a folder"):
        site.run()
    assert (site.submits, site.count(Stage.PLANNED)) == ([], 5)


def test_a_place_that_takes_nothing_now_is_refused_before_the_first_submit(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.keep = Saver(Place(tmp_path / "images", 0, StorageError("the disk is full")))
    with pytest.raises(StorageError, match="the disk is full"):
        site.run()
    assert site.submits == []


def test_the_proof_of_a_folder_leaves_no_file(tmp_path: Path):
    Folder(tmp_path / "a" / "images").check()
    assert list((tmp_path / "a" / "images").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="rights do not bind root, nor Windows")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidUsageError, match="Permission denied"):
        Folder(tmp_path).check()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that nothing can be written to")
def test_a_folder_that_can_never_be_made_is_refused():
    with pytest.raises((InvalidUsageError, StorageError), match="/proc/images"):
        Folder("/proc/images").check()


def test_the_proof_of_a_bucket_leaves_no_object():
    obstore = pytest.importorskip("obstore", reason="the extra storage is not installed")
    from fluxwerk.storage import open_storage  # noqa: PLC0415

    bucket: Any = open_storage("memory:///images")
    bucket.check()
    assert [entry for chunk in obstore.list(bucket._store) for entry in chunk] == []


def test_a_read_only_bucket_is_refused_before_the_first_submit(tmp_path: Path):
    """A bucket that cannot be written to is refused before the first submit."""
    pytest.importorskip("obstore", reason="the extra storage is not installed")
    from obstore.store import S3Store  # noqa: PLC0415

    from fluxwerk.storage import Bucket  # noqa: PLC0415

    bucket = Bucket("memory:///")
    bucket._store = S3Store(
        "b", endpoint="http://127.0.0.1:9", region="x", access_key_id="a", secret_access_key="b",
        client_options={"allow_http": True, "timeout": "1s"}, retry_config={"max_retries": 0},
    )  # fmt: skip
    site = Site(tmp_path, 3)
    site.keep = Saver(bucket)
    with pytest.raises(StorageError, match="Nothing can be stored at"):
        site.run()
    assert site.submits == []


def test_a_place_that_is_lost_ends_the_run_and_the_next_one_collects(tmp_path: Path):
    site = Site(tmp_path, 40)
    whole = site.keep
    site.keep = Saver(Place(tmp_path / "images", 2, InvalidUsageError("images: Permission denied")), provenance="none")
    with pytest.raises(StorageError, match=r"can no longer be stored.*Permission denied.*fluxwerk batch run"):
        site.run(RunOptions(lease=1.0, concurrency=2, first_pause=0.01))
    assert site.count(Stage.SAVED) == 2
    assert len(site.submits) < 10
    assert site.count(Stage.READY, Stage.SUBMITTED) == len(site.submits) - 2
    site.keep = whole
    assert site.run() == ""
    assert (site.count(Stage.SAVED), len(site.submits)) == (40, 40)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("output", ["out/a.png", "file.txt/a.png", "file.txt/b/a.png", "folder.png"])
def test_a_name_that_can_never_be_stored_is_refused_before_the_submit(tmp_path: Path, output: str):
    site = Site(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    (images / "out").symlink_to(tmp_path)
    (images / "file.txt").write_bytes(b"")
    (images / "folder.png").mkdir()
    plan(site.ledger, [{"prompt": "a fox", "output": output}])
    site.run()
    assert (site.submits, site.ledger.budget.sums().spent) == ([], 0)
    assert (site.ledger.row(1)["kind"], site.ledger.row(1)["stage"]) == ("invalid", "failed")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_template_folder_that_links_out_is_refused_before_a_submit(tmp_path: Path):
    """A folder of the template that is a link out of the output folder is refused before the submit."""
    site = Site(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cats").symlink_to(tmp_path)
    site.keep = Saver(Folder(tmp_path / "images"), "{tag}/{index}.{ext}")
    plan(site.ledger, [{"prompt": "a fox", "tag": "cats"}])
    site.run()
    assert (site.submits, site.count(Stage.FAILED)) == ([], 1)


def test_a_timeout_ends_the_run_and_what_was_paid_for_stays(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = never_ready
    end = site.end(RunOptions(lease=1.0, timeout=0.4))
    assert (end.reason, end.text) == (EndReason.TIMED_OUT, "the timeout of 0.4 s is reached")
    assert site.count(Stage.SUBMITTED) == len(site.submits) == 5
    site.intercept = honest
    assert site.end().reason is EndReason.FINISHED
    assert (site.count(Stage.SAVED), len(site.submits)) == (5, 5)
    judge.judge(site.ledger, site.accepted)


def test_a_run_that_is_done_before_its_timeout_is_finished(tmp_path: Path):
    site = Site(tmp_path, 5)
    assert site.end(RunOptions(lease=1.0, timeout=30.0)).reason is EndReason.FINISHED


def test_nothing_is_submitted_in_the_last_quarter_of_a_timeout(tmp_path: Path):
    site = Site(tmp_path, 40)
    stopping = threading.Event()
    late: list[RunProgress] = []

    def watch(progress: RunProgress) -> None:
        if progress.kind == "stopping":
            stopping.set()
        elif progress.kind == "submitting" and stopping.is_set():
            late.append(progress)

    site.intercept, site.on_progress = never_ready, watch
    end = site.end(RunOptions(lease=1.0, timeout=0.4, concurrency=2))
    assert (end.reason, late, stopping.is_set()) == (EndReason.TIMED_OUT, [], True)


def test_a_stop_waits_no_longer_than_drain_for_a_task_that_never_ends(tmp_path: Path):
    site = Site(tmp_path, 5)
    site.intercept = never_ready
    site.on_progress = lambda progress: site.worker.stop() if progress.kind == "submitted" and site.worker else None

    def stop_once(progress: RunProgress) -> None:
        if progress.kind == "submitted" and site.worker and not stopped:
            stopped.append(progress)
            site.worker.stop("enough")

    stopped: list[RunProgress] = []
    site.on_progress = stop_once
    end = site.end(RunOptions(lease=1.0, drain=0.2))
    assert (end.reason, end.text) == (EndReason.STOPPED, "enough")
    assert site.count(Stage.SUBMITTED) == len(site.submits) == 5
    site.intercept, site.on_progress = honest, lambda _: None
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits)) == (5, 5)


def test_a_run_without_a_fault_says_that_it_is_finished(tmp_path: Path):
    def save(*_: Any) -> Saved:
        return Saved("/images/1.png", "ab" * 32)

    site = Site(tmp_path, 1)
    site.keep = save
    assert site.end().reason is EndReason.FINISHED
