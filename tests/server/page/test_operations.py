"""The operator's numbers: who may see them, and what they say."""

from __future__ import annotations

from contextlib import closing

import pytest

from fluxwerk.server.errors import ServerError
from fluxwerk.server.page import operations
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.doubts import UpstreamDoubts
from fluxwerk.server.state.figures import QUEUE
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.store import Store
from fluxwerk.testing.face_to_face import blank
from support.asking import face, json_of, post

HERE, STRANGER = "127.0.0.1", "203.0.113.9"
ADD_DOUBT = """
    insert into upstream (task, account, model, pool, intended, cost, ended, doubt)
    values (:task, 'a', 'flux-2-pro', 'standard', 5.0, 3000000, 9.0, 'no answer')
"""


class Meanwhile(StateFile):
    """A state whose tasks another process ends as soon as the queue is counted."""

    def ask(self, sql, **values):
        rows = super().ask(sql, **values)
        if sql == QUEUE:
            with closing(StateFile(self.path)) as other, other.write() as transaction:
                transaction.run("update task set stage = 'ended', word = 'Error', holds_until = 0")
        return rows


def request(method: str = "GET", body: bytes = b"", host: str = "127.0.0.1:8000", **headers: str) -> ServerRequest:
    return ServerRequest(method, "/v1/ops", f"http://{host}", {}, headers, body)


def test_the_numbers_say_how_tasks_end_and_what_they_cost():
    of = face()
    post(of, {"prompt": "a heron"})
    post(of, {"prompt": "fluxwerk:error"})
    numbers = json_of(operations.show(of.state, request(), HERE))
    assert numbers["ended"] == {"Ready": 1, "Error": 1}
    assert numbers["failures"] == {"Error: internal_error": 1}
    assert [(row["model"], row["tasks"], row["credits"]) for row in numbers["spend"]] == [("flux-2-pro", 2, 3)]
    assert numbers["spent"] == 3


def test_the_numbers_say_where_tasks_stand():
    of = face(seconds=60.0)
    of._stop_working()
    for prompt in ("a heron", "a fox", "fluxwerk:pending-forever"):
        post(of, {"prompt": prompt})
    of.state.finish(of.state.claim(), blank(1024, 1024))
    numbers = json_of(operations.show(of.state, request(), HERE))
    assert (numbers["queued"], numbers["running"]) == (1, 2)
    assert [row["held"] for row in numbers["slots"] if row["pool"] == "standard"] == [3]


def test_a_task_that_ends_between_two_counts_is_counted_in_both_or_in_neither(tmp_path):
    of = face(accounts=Accounts(store=Store(Meanwhile(tmp_path / "state.db"), MemoryStorage())))
    of._stop_working()
    post(of, {"prompt": "a heron"})
    numbers = json_of(operations.show(of.state, request(), HERE))
    assert (numbers["queued"], numbers["running"]) == (1, 0)
    numbers = json_of(operations.show(of.state, request(), HERE))
    assert (numbers["queued"], numbers["running"]) == (0, 0)


def test_the_newest_spend_comes_first_and_is_bounded():
    of = face()
    for number in range(3):
        of.clock.sleep(86_400 if number else 0)
        post(of, {"prompt": "a heron"})
    days = [one.day for one in of.state.accounts.applications.newest_spend(2)]
    assert len(days) == 2
    assert days == sorted(days, reverse=True)


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        (STRANGER, request()),
        (HERE, request(host="studio.example")),
        (HERE, request(**{"x-forwarded-for": STRANGER})),
        (STRANGER, request(**{"x-key": "a-guess"})),
    ],
)
def test_a_stranger_sees_no_numbers(address, asked):
    with pytest.raises(ServerError, match="for the operator"):
        operations.show(face().state, asked, address)


def test_a_doubt_is_listed_until_it_is_settled():
    of = face()
    with of.state.store.database.write() as transaction:
        transaction.run(ADD_DOUBT, task="t-1")
    assert [one["id"] for one in json_of(operations.show(of.state, request(), HERE))["doubts"]] == ["t-1"]
    settle = request("POST", b'{"verdict": "not charged"}', origin="http://127.0.0.1:8000")
    operations.settle(of.state, settle, HERE, "t-1")
    assert json_of(operations.show(of.state, request(), HERE))["doubts"] == []
    assert UpstreamDoubts(of.state.store.database).listed() == []
