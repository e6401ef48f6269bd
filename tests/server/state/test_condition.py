"""What is known of database and storage: each by its own use, and the storage by a look at a bounded rate."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fluxwerk.errors import StorageError
from fluxwerk.ledger.database import DatabaseError
from fluxwerk.server.state.condition import LONGEST_PROBE, PROBE_EVERY, StorageCondition
from fluxwerk.testing.clock import PretendClock


class Probed:
    """A part of a state that counts how often it is probed, and fails while it is `broken`."""

    def __init__(self) -> None:
        self.count = 0
        self.broken = False

    def __call__(self) -> None:
        self.count += 1
        if self.broken:
            raise StorageError("the bucket is away")


def condition(files: Callable[[], object], rows: Callable[[], object] = bool) -> tuple[StorageCondition, PretendClock]:
    clock = PretendClock()
    return StorageCondition(clock.now, rows, files), clock


def test_the_storage_is_probed_without_a_write_before_and_at_a_bounded_rate():
    files = Probed()
    known, clock = condition(files)
    assert [known.check_storage() for _ in range(5)] == [True] * 5
    assert files.count == 1
    files.broken = True
    assert known.check_storage()
    clock.sleep(PROBE_EVERY)
    assert [known.check_storage() for _ in range(5)] == [False] * 5
    assert files.count == 2
    files.broken = False
    clock.sleep(PROBE_EVERY)
    assert known.check()


def test_a_storage_that_was_just_used_is_not_probed():
    files = Probed()
    known, clock = condition(files)
    known.took_files()
    assert known.check_storage()
    known.note(StorageError("the bucket is away"))
    clock.sleep(PROBE_EVERY - 1)
    assert not known.check_storage()
    assert files.count == 0


def test_what_fails_in_the_database_says_nothing_of_the_storage_and_the_other_way_round(caplog):
    known, _ = condition(Probed())
    known.note(DatabaseError("no rows today."))
    assert (known.database, known.storage, known.error) == ("no rows today.", None, "no rows today.")
    known.note(StorageError("no files today."))
    assert known.tries(bool)
    assert (known.database, known.storage, known.error) == (None, "no files today.", "no files today.")
    known.took_files()
    assert known.error is None
    assert [line.getMessage().partition(".")[0] for line in caplog.records] == ["no rows today", "no files today"]


def test_a_database_that_failed_is_tried_at_each_question():
    rows = Probed()
    known, _ = condition(Probed(), rows)
    assert known.check_database()
    rows.broken = True
    known.note(DatabaseError("no rows today"))
    assert not known.check()
    assert not known.check_database()
    rows.broken = False
    assert known.check_database()
    assert rows.count == 3


def test_nobody_waits_for_a_probe_of_another_and_one_that_takes_long_has_failed():
    entered, leave = threading.Event(), threading.Event()

    def probe() -> None:
        entered.set()
        assert leave.wait(30)

    known, clock = condition(probe)
    probing = threading.Thread(target=known.check_storage)
    probing.start()
    assert entered.wait(30)
    assert known.check_storage()
    clock.sleep(LONGEST_PROBE)
    assert not known.check_storage()
    leave.set()
    probing.join()
    assert known.check_storage()
