"""How a submit is booked: its files first, then its row in one transaction, and what is left where that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fluxwerk.errors import StorageError
from fluxwerk.ledger.database import Transaction, UnknownCommitError
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.store import Store
from fluxwerk.testing import FaceToFace
from support.asking import face, json_of, poll, post
from support.images import png, text

FOX = {"prompt": "a fox", "width": 64, "height": 64, "seed": 5}
EDIT = {**FOX, "input_image": text(png(64, 64))}


class ForgetfulFile(StateFile):
    """A database that is lost after a commit, before it can say so, while it `loses` and once it has `enough` tasks."""

    loses = False
    enough = 1
    depth = 0

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self.depth += 1
        try:
            with super().write() as transaction:
                yield transaction
        finally:
            self.depth -= 1
        if self.loses and not self.depth and len(self.ask("select id from task")) >= self.enough:
            raise UnknownCommitError("The database was lost during a commit.")


class WatchedStorage(MemoryStorage):
    """A storage that notes for each object whether others could write to the database meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.database: StateFile | None = None
        self.free: dict[str, bool] = {}

    def put(self, name: str, data: bytes, *, overwrite: bool = False) -> str:
        assert self.database
        writing = threading.Thread(target=self._write)
        writing.start()
        writing.join(2)
        self.free[name] = not writing.is_alive()
        return super().put(name, data, overwrite=overwrite)

    def _write(self) -> None:
        assert self.database
        with self.database.write():
            pass


class OpenStore(Store):
    """A store whose parts the test chooses; it has room for everything."""

    def excess(self) -> int:
        return 0


def over(database: StateFile, files: MemoryStorage, **how) -> FaceToFace:
    return face(accounts=Accounts(store=OpenStore(database, files)), **how)


def test_a_task_whose_commit_was_not_confirmed_keeps_its_inputs():
    database = ForgetfulFile()
    of = over(database, MemoryStorage())
    database.loses = True
    answer = post(of, EDIT)
    database.loses = False
    assert answer.status == 500
    assert "may or may not" in json_of(answer)["message"]

    of.state.resume()
    of.clock.sleep(1)
    (task,) = of.state.tasks.all(of.clock.now())
    assert task.word == "Ready"


def test_a_submit_whose_files_were_not_announced_for_certain_is_refused_and_nothing_is_there():
    database, files = ForgetfulFile(), MemoryStorage()
    database.enough = 0
    of = over(database, files)
    database.loses = True
    answer = post(of, EDIT)
    assert (answer.status, json_of(answer)["error"], files.held) == (503, "storage_unavailable", 0)


class KeepingStorage(MemoryStorage):
    """A storage that removes nothing while it is `stuck`."""

    stuck = False

    def remove(self, name: str) -> None:
        if self.stuck:
            raise StorageError("DELETE is refused")
        super().remove(name)


def test_a_task_is_accepted_though_its_inputs_cannot_be_removed(caplog):
    files = KeepingStorage()
    of = over(StateFile(), files, caches=True)
    poll(of, post(of, EDIT))
    files.stuck = True
    answered = post(of, EDIT)
    assert poll(of, answered)["result"]["cached"]
    of.clock.sleep(1)
    of.state.forget()
    assert "DELETE is refused" in caplog.text


def test_no_lock_waits_for_the_storage():
    database, files = StateFile(), WatchedStorage()
    files.database = database
    of = over(database, files, caches=True)
    poll(of, post(of, EDIT))
    files.free.clear()
    assert poll(of, post(of, EDIT))["result"]["cached"]
    assert files.free
    assert all(files.free.values())
