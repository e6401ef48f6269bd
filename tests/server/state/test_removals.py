"""What a state lets go of leaves its storage, also when the storage or the process fails at that moment."""

from __future__ import annotations

import pytest

from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.removals import RETRY, UNNAMED
from fluxwerk.server.state.store import Store
from fluxwerk.server.state.tasks import KEEP
from fluxwerk.testing import FaceToFace
from support.asking import Broken, ask, face, json_of, kept, poll, post
from support.frail import FrailStorage
from support.images import png, text

FOX = {"prompt": "a fox", "width": 64, "height": 64, "seed": 5}
EDIT = {**FOX, "input_image": text(png(64, 64)), "input_image_2": text(png(72, 64))}


class KilledError(BaseException):
    """Ends a process in the midst of what it does, as far as a test can see."""


def over(files: MemoryStorage, keep: float = KEEP, **how) -> FaceToFace:
    return face(accounts=Accounts(store=Store(StateFile(), files), keep=keep), **how)


def left(of: FaceToFace) -> list[str]:
    return [row["file"] for row in of.state.store.database.ask("select file from removal")]


def sweep_after(of: FaceToFace, seconds: float) -> None:
    of.clock.sleep(seconds)
    of.state.forget()


def test_a_deleted_task_leaves_nothing_anywhere():
    """Its image, its inputs, its row with the preview, and the answer that was kept for the same request."""
    files = FrailStorage()
    of = over(files, caches=True)
    submitted = post(of, EDIT)
    (job,) = kept(of.state).values()
    link = poll(of, submitted)["result"]["sample"]
    assert ask(of, "GET", link, key=None).status == 200
    assert of.state.store.database.ask("select task from answer")

    of.state.tasks.discard(job)

    database = of.state.store.database
    told = {name: database.ask(f"select * from {name}") for name in ("task", "answer", "webhook", "removal")}
    assert told == {"task": [], "answer": [], "webhook": [], "removal": []}
    assert files.names() == []
    assert ask(of, "GET", link, key=None).status == 404
    assert "cached" not in poll(of, post(of, EDIT))["result"]


def test_a_file_that_the_storage_does_not_remove_goes_once_it_does(caplog):
    files = FrailStorage()
    of = over(files)
    post(of, FOX)
    (job,) = kept(of.state).values()
    files.refuses = "remove", "images/"

    of.state.tasks.discard(job)
    sweep_after(of, 1)

    assert kept(of.state) == {}
    assert files.names() == left(of) == [job.image]
    assert f"{job.image} is refused. It is tried again until it is gone." in caplog.text
    files.refuses = None
    sweep_after(of, RETRY)
    assert files.names() == left(of) == []


def test_a_file_that_is_never_removed_keeps_no_other_from_going():
    files = FrailStorage()
    of = over(files)
    for _ in range(3):
        post(of, FOX)
    stuck, *others = kept(of.state).values()
    files.refuses = "remove", stuck.image
    for job in others:
        files.refuses = "remove", ""
        of.state.tasks.discard(job)
    files.refuses = "remove", stuck.image
    of.state.tasks.discard(stuck)
    for _ in range(3):
        sweep_after(of, RETRY)
    assert files.names() == left(of) == [stuck.image]


def test_a_batch_of_tasks_that_were_kept_long_enough_goes_though_the_storage_fails_meanwhile():
    files = FrailStorage()
    of = over(files)
    for _ in range(20):
        post(of, FOX)
    files.refuses = "remove", ""
    sweep_after(of, KEEP + 1)
    assert len(files.names()) == len(left(of)) == 20
    assert of.state.store.database.ask("select id from task") == []
    files.refuses = None
    sweep_after(of, 1)
    assert len(files.names()) == 20, "a storage that failed has a pause"
    sweep_after(of, RETRY)
    assert files.names() == left(of) == []


@pytest.mark.parametrize(
    ("how", "prompt"),
    [({}, "a fox"), ({"engine": Broken()}, "a fox"), ({}, "fluxwerk:error"), ({"seconds": 60.0}, "a fox")],
    ids=["ready", "failed", "decided", "cancelled"],
)
def test_inputs_go_when_their_task_has_ended_though_the_storage_fails_at_that_moment(how, prompt):
    files = FrailStorage()
    of = over(files, **how)
    files.refuses = "remove", ""
    task = json_of(post(of, {**EDIT, "prompt": prompt}))["id"]
    if "seconds" in how:
        assert json_of(ask(of, "DELETE", f"/v1/tasks/{task}"))["cancelled"]
    assert [name for name in files.names() if name.startswith("inputs/")]
    files.refuses = None
    sweep_after(of, RETRY)
    assert [name for name in files.names() if name.startswith("inputs/")] == left(of) == []
    assert len(files.names()) == (how == {} and prompt == "a fox")


def test_inputs_of_a_submit_whose_later_input_cannot_be_stored_go():
    files = FrailStorage()
    of = over(files)
    files.refuses = "put", "reference-01"
    assert post(of, EDIT).status == 503
    assert files.names() == left(of) == []


class MortalStorage(MemoryStorage):
    """A storage whose process ends once it has written a file with the word `last` in its name."""

    last: str | None = None

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        told = super().put(name, data, overwrite=overwrite)
        if self.last and self.last in name:
            raise KilledError
        return told

    def remove(self, name: str) -> None:
        if self.last:
            raise KilledError
        super().remove(name)


@pytest.mark.parametrize("last", ["reference-01", "images/"], ids=["input", "kept answer"])
def test_files_of_a_submit_that_a_crash_cut_short_go_an_hour_later(last):
    files = MortalStorage()
    of = over(files, 3 * UNNAMED, caches=True)
    poll(of, post(of, EDIT))
    kept_files = list(files._objects)
    files.last = last
    with pytest.raises(KilledError):
        post(of, EDIT)
    files.last = None
    assert len(files._objects) > len(kept_files)

    of = face(accounts=Accounts(store=of.state.store, keep=3 * UNNAMED))
    of.clock.jump_to(of.clock.now() + UNNAMED - 1)
    of.state.forget()
    assert len(files._objects) > len(kept_files)
    sweep_after(of, 2)
    assert list(files._objects) == kept_files


def test_files_that_a_row_names_stay_however_long_they_wait():
    files = FrailStorage()
    of = over(files)
    of._stop_working()
    submitted = post(of, EDIT)
    sweep_after(of, UNNAMED + 1)
    assert len(files.names()) == 2
    of.state.resume()
    of.state._listeners.clear()
    job = of.state.claim()
    assert job is not None
    assert len(job.order.references) == 2
    assert poll(of, submitted)["status"] == "Pending"


def test_an_image_of_a_worker_that_ended_before_it_could_name_it_goes_with_its_task():
    files = MortalStorage()
    of = over(files)
    of._stop_working()
    post(of, FOX)
    job = of.state.claim()
    files.last = "images/"
    assert job is not None
    with pytest.raises(KilledError):
        of.state.finish(job, png(64, 64))
    files.last = None
    again = of.state.begin(job.task.id)
    assert again is not None
    assert of.state.finish(again, png(64, 64))
    assert len(files._objects) == 2
    of.state.tasks.discard(again)
    assert list(files._objects) == []


def test_a_late_image_that_cannot_be_removed_goes_later():
    files = FrailStorage()
    of = over(files)
    of._stop_working()
    post(of, FOX)
    job = of.state.claim()
    assert job is not None
    of.state.cancel(job)
    (ended,) = kept(of.state).values()
    of.state.tasks.discard(ended)
    files.refuses = "remove", ""
    assert not of.state.finish(job, png(64, 64))
    assert len(files.names()) == 1
    files.refuses = None
    sweep_after(of, UNNAMED + 1)
    assert files.names() == left(of) == []


def test_only_a_submit_with_images_costs_one_more_write():
    of = over(FrailStorage())
    of._stop_working()
    database, writes = of.state.store.database, []
    for body in (FOX, EDIT):
        before = database.commits
        assert post(of, body).status == 200
        writes.append(database.commits - before)
    # The transaction that accepts a task within that of its files counts too.
    assert writes == [1, 3]
